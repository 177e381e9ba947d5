//! The Rust sources of kernels as what the stand-in runs under their names.

use chare_device::{Grid, Kernel, Params};
use cuda_stand_in::{Parameter, StandIn};

/// One argument, and where it stands among the parameters that the stand-in is told of.
struct Place {
    offset: usize,
    bytes: usize,
    is_buffer: bool,
    index: usize,
}

/// Makes the Rust source of a kernel what the stand-in runs. Arguments come as one buffer, whose gaps are parameters too; a
/// buffer is an address and a number of elements.
pub(crate) fn register<A: Params>(kernel: &Kernel<A>) {
    let mut parameters = Vec::new();
    let mut places = Vec::new();
    let mut end = 0;
    let fill_gap = |parameters: &mut Vec<Parameter>, end: usize, next: usize| {
        let gap = (next > end).then(|| Parameter::Value { bytes: (next - end) as u32 });
        parameters.extend(gap);
    };
    for (offset, bytes, is_buffer) in kernel.layout() {
        fill_gap(&mut parameters, end, offset);
        places.push(Place { offset, bytes, is_buffer, index: parameters.len() });
        match is_buffer {
            true => parameters.extend([Parameter::Address { align: 1 }, Parameter::Value { bytes: 8 }]),
            false => parameters.push(Parameter::Value { bytes: bytes as u32 }),
        }
        end = offset + bytes;
    }
    fill_gap(&mut parameters, end, end.next_multiple_of(4));
    let grid = parameters.len();
    parameters.push(Parameter::Value { bytes: 12 });
    let kernel = *kernel;
    let stand_in = StandIn::loaded().expect("the library on the path is the stand-in");
    stand_in.register(kernel.name(), &parameters, move |_, arguments| {
        let mut packed = vec![0; end];
        for &Place { offset, bytes, is_buffer, index } in &places {
            let place = &mut packed[offset..offset + bytes];
            if !is_buffer {
                place.copy_from_slice(arguments.bytes(index));
                continue;
            }
            let len: u64 = arguments.value(index + 1);
            // An absent buffer has no byte; one without elements has memory all the same.
            let address = match arguments.slice::<u8>(index, (len as usize).max(1)) {
                Ok(bytes) => bytes.as_mut_ptr().expose_provenance() as u64,
                Err(_) if len == 0 => 0,
                Err(fault) => return Err(fault),
            };
            place[..8].copy_from_slice(&address.to_ne_bytes());
            place[8..].copy_from_slice(&len.to_ne_bytes());
        }
        let [x, y, z] = arguments.value::<[u32; 3]>(grid);
        // SAFETY: these are its arguments. The stand-in has put addresses of host memory in the place of the device's; that
        // nobody else uses it is what streams and events are to see to.
        unsafe { kernel.run_for(Grid::new(x, y, z), &packed) };
        Ok(())
    });
}
