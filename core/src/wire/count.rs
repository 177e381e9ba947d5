//! How many buffers a value takes along, asked before it leaves.
//!
//! The value is serialised to nowhere: what has buffers says so (`side`), and is left as it is. Ends of promises stay where they are, and have none.

use postcard::ser_flavors::Flavor;
use serde::Serialize;

use super::{known, side};

/// How many buffers stand beside it when it is encoded. `None` if it cannot be encoded.
pub(crate) fn count_buffers<T: Serialize + 'static>(value: &T) -> Option<usize> {
    if let Some(buffers) = known::buffers_if_known(value) {
        return Some(buffers);
    }
    let (counted, buffers) = side::counting(|| postcard::serialize_with_flavor(value, Nowhere));
    counted.ok().map(|()| buffers)
}

/// Keeps nothing.
struct Nowhere;

impl Flavor for Nowhere {
    type Output = ();

    #[inline]
    fn try_push(&mut self, _: u8) -> postcard::Result<()> {
        Ok(())
    }

    #[inline]
    fn try_extend(&mut self, _: &[u8]) -> postcard::Result<()> {
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::wire::{Bulk, Encoder, Local};
    use crate::{Options, Runtime, current};

    #[test]
    fn as_many_are_counted_as_are_encoded_and_nothing_is_taken() {
        let report = Runtime::run(Options::default(), async |rt: Runtime| {
            let account = current::on_pe("a test", |pe| pe.shared().devices().get(0).account("me"));
            let share = account.upload(vec![1.0_f64; 3]).expect("memory").share();
            let (promise, value) = rt.promise::<u8>();
            let bulks = [1, 100, 2, 200].map(|len| Bulk::from(vec![0.5_f64; len]));
            let all = (vec![share.clone(), share.clone()], bulks, promise);
            assert_eq!(count_buffers(&all), Some(4));
            let mut encoder = Encoder::default();
            encoder.put(&all.0).expect("a message is being encoded");
            encoder.put(&all.1).expect("a message is being encoded");
            assert_eq!(encoder.buffers.len(), 4);
            assert_eq!(count_buffers(&vec![share; 1700]), Some(1700));
            assert_eq!(count_buffers(&Local(1)), None);
            assert!(postcard::to_allocvec(&all).is_err(), "that is no message");
            // Its only end is still here.
            drop(all);
            assert!(value.await.is_err());
        });
        let report = report.expect("the host device is always there");
        assert!(report.is_success(), "{report}");
    }
}
