//! The Rust sources of kernels as what the stand-in runs under their names.

use chare_device::{Grid, Kernel, Params};
use cuda_stand_in::{Field, StandIn};

/// Makes the Rust source of a kernel what the stand-in runs. The grid comes after the parameters.
pub(crate) fn register<A: Params>(kernel: &Kernel<A>) {
    let field = |(offset, len_bytes, is_buffer)| Field { offset, len_bytes, is_buffer };
    let mut fields: Vec<Field> = kernel.layout().into_iter().map(field).collect();
    let end = fields.last().map_or(0, |last| last.offset + last.len_bytes);
    let grid = end.next_multiple_of(4);
    fields.push(field((grid, 12, false)));
    let kernel = *kernel;
    let stand_in = StandIn::loaded().expect("the library on the path is the stand-in");
    stand_in.register_packed(kernel.name(), &fields, move |_, packed| {
        let word = |index: usize| packed[grid + 4 * index..].first_chunk().expect("the grid is three words");
        let [x, y, z] = [0, 1, 2].map(|index| u32::from_ne_bytes(*word(index)));
        // SAFETY: these are its arguments. The stand-in has put addresses of host memory in the place of the device's; that
        // nobody else uses it is what streams and events are to see to.
        unsafe { kernel.run_for(Grid::new(x, y, z), &packed[..end]) };
    });
}
