//! Tensors as rows of tokens on the host, which is what travels: a token's values of all sequences and heads lie together, so that
//! tokens from many ranks can be put in order by moving whole rows.

use crate::{Comm, Payload, Result};
use burn::tensor::{Device, Tensor};
use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};
use half::{bf16, f16};
use tessera_backend::device_values;
use tessera_backend::host_values;

/// Tokens one after the other, each with the values of one or more tensors.
#[derive(Debug, Clone)]
pub(crate) struct Rows {
    pub values: Vec<f32>,
    /// Values of a token.
    pub width: usize,
}

/// Batch, heads and features of a tensor `[batch, heads, tokens, features]`.
pub(crate) type Width = [usize; 3];

pub(crate) fn width(tensor: &Tensor<4>) -> Width {
    let [batch, heads, _, features] = tensor.dims();
    [batch, heads, features]
}

fn values(width: Width) -> usize {
    width.iter().product()
}

impl Rows {
    /// The tokens of tensors that have as many.
    ///
    /// # Shapes
    /// - tensors: `[batch, heads, tokens, features]` each
    pub fn of(tensors: &[&Tensor<4>]) -> Self {
        let widths: Vec<_> = tensors.iter().map(|tensor| values(width(tensor))).collect();
        let tensors = tensors
            .iter()
            .map(|&tensor| host_values(tensor.clone().permute([2, 0, 1, 3])));
        let mut tensors: Vec<_> = tensors.collect();
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

    pub fn tokens(&self) -> usize {
        self.values.len() / self.width.max(1)
    }

    fn row(&self, token: usize) -> &[f32] {
        &self.values[token * self.width..(token + 1) * self.width]
    }

    /// The rows of these numbers, in their order.
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

    /// The tensors again, given what each token has of each.
    pub fn tensors<const N: usize>(self, widths: [Width; N], device: &Device) -> [Tensor<4>; N] {
        let tokens = self.tokens();
        let tensor = |values, [batch, heads, features]: Width| {
            let rows = device_values(values, [tokens, batch, heads, features], device);
            rows.permute([1, 2, 0, 3])
        };
        if N == 1 {
            let mut whole = Some(self.values);
            return widths.map(|width| tensor(whole.take().expect("one tensor"), width));
        }
        let mut start = 0;
        widths.map(|width| {
            let of = start..start + values(width);
            start = of.end;
            let mut part = Vec::with_capacity(tokens * values(width));
            for token in 0..tokens {
                part.extend_from_slice(&self.row(token)[of.clone()]);
            }
            tensor(part, width)
        })
    }
}

/// Rows on their way; counts are of tokens.
impl Rows {
    /// Everyone's rows, one rank after the other.
    pub fn all_gather(&self, comm: &Comm, counts: &[usize], payload: Payload) -> Result<Self> {
        let counts = self.lengths(counts);
        let values = match payload {
            Payload::F32 => comm.all_gather(&self.values, &counts)?,
            narrow => narrow.widened(&comm.all_gather(&narrow.narrowed(&self.values), &counts)?),
        };
        Ok(Self { values, ..*self })
    }

    /// As many rows to each rank and from each as are given.
    pub fn all_to_all(
        &self,
        comm: &Comm,
        send: &[usize],
        recv: &[usize],
        payload: Payload,
    ) -> Result<Self> {
        let (send, recv) = (self.lengths(send), self.lengths(recv));
        let values = match payload {
            Payload::F32 => comm.all_to_all(&self.values, &send, &recv)?,
            narrow => {
                let values = narrow.narrowed(&self.values);
                narrow.widened(&comm.all_to_all(&values, &send, &recv)?)
            }
        };
        Ok(Self { values, ..*self })
    }

    /// All rows to one rank, those of another from it, and what `meanwhile` gives, which runs while they are on their way.
    pub fn send_recv_while<R>(
        &self,
        comm: &Comm,
        [to, from]: [usize; 2],
        tokens: usize,
        payload: Payload,
        meanwhile: impl FnOnce() -> R,
    ) -> Result<(Self, R)> {
        let count = tokens * self.width;
        let (values, result) = match payload {
            Payload::F32 => comm.send_recv_while(to, &self.values, from, count, meanwhile)?,
            narrow => {
                let values = narrow.narrowed(&self.values);
                let (values, result) = comm.send_recv_while(to, &values, from, count, meanwhile)?;
                (narrow.widened(&values), result)
            }
        };
        Ok((Self { values, ..*self }, result))
    }

    /// [`send_recv_while`](Self::send_recv_while) with nothing to do meanwhile.
    pub fn send_recv(
        &self,
        comm: &Comm,
        peers: [usize; 2],
        tokens: usize,
        payload: Payload,
    ) -> Result<Self> {
        Ok(self.send_recv_while(comm, peers, tokens, payload, || ())?.0)
    }

    /// The sum of everyone's rows for this rank, in the order of the ranks.
    pub fn reduce_scatter(&self, comm: &Comm, counts: &[usize]) -> Result<Self> {
        let values = comm.reduce_scatter_ordered(&self.values, &self.lengths(counts))?;
        Ok(Self { values, ..*self })
    }

    fn lengths(&self, tokens: &[usize]) -> Vec<usize> {
        tokens.iter().map(|tokens| tokens * self.width).collect()
    }
}

impl Payload {
    /// The bits of values in a 16-bit type.
    fn narrowed(self, values: &[f32]) -> Vec<u16> {
        let mut bits = vec![0_u16; values.len()];
        match self {
            Self::F16 => bits
                .reinterpret_cast_mut::<f16>()
                .convert_from_f32_slice(values),
            _ => bits
                .reinterpret_cast_mut::<bf16>()
                .convert_from_f32_slice(values),
        }
        bits
    }

    fn widened(self, bits: &[u16]) -> Vec<f32> {
        match self {
            Self::F16 => bits.reinterpret_cast::<f16>().to_f32_vec(),
            _ => bits.reinterpret_cast::<bf16>().to_f32_vec(),
        }
    }
}
