#!/usr/bin/env bash
# Attention2D against Ring Attention over a slow link: ranks under MPI over TCP, in a network namespace of their own whose loopback
# carries RATE altogether. Needs root (or the rights to make a namespace), `tc`, and the program built with the feature `mpi`.
#
#   benches/slow-link.sh 200mbit 4096,8192,16384,32768 [more arguments of `tessera attn bench`]
set -euo pipefail
rate=$1 tokens=$2
shift 2
program=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)/target/release/tessera
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
# No shared memory: all that ranks say to each other goes over the link.
export OMPI_MCA_btl=tcp,self OMPI_MCA_btl_tcp_if_include=lo OMPI_MCA_oob_tcp_if_include=lo OMPI_MCA_coll=^sm
unshare --net bash -s -- "$program" "$rate" "$tokens" "$@" <<'INSIDE'
set -euo pipefail
program=$1 rate=$2 tokens=$3
shift 3
ip link set lo up
tc qdisc add dev lo root tbf rate "$rate" burst 512kb limit 256mb
timeout 3000 mpirun -n 16 "$program" attn bench --tokens "$tokens" --heads 16 --head-dim 64 \
    --grid 4x4 --method attention2d,ring --no-compare "$@"
INSIDE
