//! Tensors as rows of tokens in host memory, the form that is communicated: all values of a token lie together, so that
//! tokens from many ranks are sorted by moving whole rows.

use crate::comm::collective::Peers;
use crate::comm::communicator::Comm;
use crate::error::Result;
use crate::methods::wire::WireDtype;
use burn::tensor::{Device, Tensor};
use tessera_backend::{device_values, host_values};

/// One row per token, with the token's values of one or more tensors.
#[derive(Debug, Clone)]
pub(crate) struct Rows {
    pub values: Vec<f32>,
    /// Values per row.
    pub width: usize,
}

/// The sizes of a tensor `[batch, heads, tokens, features]` besides its tokens.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RowShape {
    pub batch: usize,
    pub heads: usize,
    pub features: usize,
}

impl RowShape {
    /// # Shapes
    /// - tensor: `[batch, heads, tokens, features]`
    pub fn of(tensor: &Tensor<4>) -> Self {
        let [batch, heads, _, features] = tensor.dims();
        Self {
            batch,
            heads,
            features,
        }
    }

    /// Values per token.
    pub fn width(self) -> usize {
        self.batch * self.heads * self.features
    }
}

impl Rows {
    /// The tokens of tensors that have equally many.
    ///
    /// # Shapes
    /// - tensors: `[batch, heads, tokens, features]` each
    pub fn of(tensors: &[&Tensor<4>]) -> Self {
        let widths: Vec<_> = tensors.iter().map(|x| RowShape::of(x).width()).collect();
        let by_token = tensors
            .iter()
            .map(|&x| host_values(x.clone().permute([2, 0, 1, 3]))); // [tokens, batch, heads, features]
        let mut tensors: Vec<_> = by_token.collect();
        if let [_] = tensors[..] {
            let values = tensors.remove(0);
            return Self {
                values,
                width: widths[0],
            };
        }
        let width: usize = widths.iter().sum();
        let mut values = Vec::with_capacity(tensors.iter().map(Vec::len).sum());
        let tokens = tensors[0].len() / widths[0].max(1);
        for token in 0..tokens {
            for (tensor, &width) in tensors.iter().zip(&widths) {
                values.extend_from_slice(&tensor[token * width..(token + 1) * width]);
            }
        }
        Self { values, width }
    }

    /// No tokens of tensors with these shapes, `[batch, heads, tokens, head_dim]`.
    pub fn empty(tensors: &[&Tensor<4>]) -> Self {
        Self {
            values: Vec::new(),
            width: tensors.iter().map(|x| RowShape::of(x).width()).sum(),
        }
    }

    /// The tensors of these shapes that the rows were made from.
    ///
    /// # Shapes
    /// - outputs: `[batch, heads, tokens, features]` each
    pub fn tensors<const N: usize>(self, shapes: [RowShape; N], device: &Device) -> [Tensor<4>; N] {
        let tokens = self.tokens();
        let tensor = |values, shape: RowShape| {
            let RowShape {
                batch,
                heads,
                features,
            } = shape;
            let rows: Tensor<4> = device_values(values, [tokens, batch, heads, features], device);
            rows.permute([1, 2, 0, 3]) // [batch, heads, tokens, features]
        };
        if N == 1 {
            let mut whole = Some(self.values);
            return shapes.map(|shape| tensor(whole.take().expect("one tensor"), shape));
        }
        let mut start = 0;
        shapes.map(|shape| {
            let of = start..start + shape.width();
            start = of.end;
            let mut part = Vec::with_capacity(tokens * shape.width());
            for token in 0..tokens {
                part.extend_from_slice(&self.row(token)[of.clone()]);
            }
            tensor(part, shape)
        })
    }

    /// [`tensors`](Self::tensors) with the shapes and the device of others.
    ///
    /// # Shapes
    /// - like: `[batch, heads, any, features]` each
    /// - outputs: `[batch, heads, tokens, features]` each
    pub fn tensors_like<const N: usize>(self, like: [&Tensor<4>; N]) -> [Tensor<4>; N] {
        self.tensors(like.map(RowShape::of), &like[0].device())
    }

    pub fn tokens(&self) -> usize {
        self.values.len() / self.width.max(1)
    }

    fn row(&self, token: usize) -> &[f32] {
        &self.values[token * self.width..(token + 1) * self.width]
    }

    /// The rows with these numbers, in this order.
    pub fn select(&self, numbers: &[usize]) -> Self {
        let mut values = Vec::with_capacity(numbers.len() * self.width);
        for &number in numbers {
            values.extend_from_slice(self.row(number));
        }
        Self {
            values,
            width: self.width,
        }
    }

    /// The rows of `parts`, one part after the other.
    pub fn concat(parts: impl IntoIterator<Item = Self>) -> Self {
        let mut parts = parts.into_iter();
        let mut all = parts.next().expect("at least one part");
        parts.for_each(|part| all.values.extend(part.values));
        all
    }
}

/// Communication; counts are in tokens.
impl Rows {
    /// The rows of all ranks, ordered by rank.
    pub fn all_gather(&self, comm: &Comm, counts: &[usize], dtype: WireDtype) -> Result<Self> {
        let counts = self.lengths(counts);
        let values = match dtype {
            WireDtype::F32 => comm.all_gather(&self.values, &counts)?,
            narrow => narrow.widened(&comm.all_gather(&narrow.narrowed(&self.values), &counts)?),
        };
        Ok(Self { values, ..*self })
    }

    /// Sends `send[r]` rows to rank `r` and receives `recv[r]` from it.
    pub fn all_to_all(
        &self,
        comm: &Comm,
        send: &[usize],
        recv: &[usize],
        dtype: WireDtype,
    ) -> Result<Self> {
        let (send, recv) = (self.lengths(send), self.lengths(recv));
        let values = match dtype {
            WireDtype::F32 => comm.all_to_all(&self.values, &send, &recv)?,
            narrow => {
                let values = narrow.narrowed(&self.values);
                narrow.widened(&comm.all_to_all(&values, &send, &recv)?)
            }
        };
        Ok(Self { values, ..*self })
    }

    /// Sends all rows to one rank and receives `tokens` from another, calling `meanwhile` while they are in flight.
    pub fn send_recv_while<R>(
        &self,
        comm: &Comm,
        peers: Peers,
        tokens: usize,
        dtype: WireDtype,
        meanwhile: impl FnOnce() -> R,
    ) -> Result<(Self, R)> {
        let count = tokens * self.width;
        let (values, result) = match dtype {
            WireDtype::F32 => comm.send_recv_while(peers, &self.values, count, meanwhile)?,
            narrow => {
                let values = narrow.narrowed(&self.values);
                let (values, result) = comm.send_recv_while(peers, &values, count, meanwhile)?;
                (narrow.widened(&values), result)
            }
        };
        Ok((Self { values, ..*self }, result))
    }

    /// [`send_recv_while`](Self::send_recv_while) with nothing to compute.
    pub fn send_recv(
        &self,
        comm: &Comm,
        peers: Peers,
        tokens: usize,
        dtype: WireDtype,
    ) -> Result<Self> {
        Ok(self.send_recv_while(comm, peers, tokens, dtype, || ())?.0)
    }

    /// Sums all ranks' rows for this rank, in rank order.
    pub fn reduce_scatter(&self, comm: &Comm, counts: &[usize]) -> Result<Self> {
        let values = comm.reduce_scatter_ordered(&self.values, &self.lengths(counts))?;
        Ok(Self { values, ..*self })
    }

    fn lengths(&self, tokens: &[usize]) -> Vec<usize> {
        tokens.iter().map(|tokens| tokens * self.width).collect()
    }
}
