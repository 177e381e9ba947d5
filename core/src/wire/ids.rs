//! Ids that come from another process. They are checked where they are read, so that what looks them up need not.

use serde::{Deserialize, Deserializer};

use super::side;
use crate::current;
use crate::ids::{ChareId, CollectionId, PeId};
use crate::scheduler::pe::Pe;

/// It names a PE that this run does not have.
#[derive(Debug, thiserror::Error)]
#[error("it names PE {number}, and this run has {pes} PEs")]
pub(super) struct NoSuchPe {
    number: u64,
    pes: usize,
}

/// Fails if a PE is not one of the run that the running code belongs to.
#[inline]
pub(super) fn check_pe(number: u64) -> Result<(), NoSuchPe> {
    match current::pe(|pe| pe.map(Pe::pe_count)) {
        Some(pes) if number >= pes as u64 => Err(NoSuchPe { number, pes }),
        _ => Ok(()),
    }
}

/// The PE that the id of a chare names, the highest if it names two: the number of a singleton names the one that has made it.
#[inline]
pub(super) fn pe_number_of(ChareId { collection, element }: ChareId) -> u64 {
    let maker = if collection.is_of_singles() { CollectionId(element).pe_number() } else { 0 };
    collection.pe_number().max(maker)
}

/// Reads something that names a PE, which has to be one of this run if that is to be checked.
fn checked<'de, D, N, T>(
    deserializer: D,
    is_checked: impl FnOnce() -> bool,
    make: impl FnOnce(N) -> T,
    pe_number: impl FnOnce(&T) -> u64,
) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    N: Deserialize<'de>,
{
    use serde::de::Error;
    let id = make(N::deserialize(deserializer)?);
    if is_checked() {
        check_pe(pe_number(&id)).map_err(D::Error::custom)?;
    }
    Ok(id)
}

/// What a program has made with `PeId::new` and sends as a value may be any number.
impl<'de> Deserialize<'de> for PeId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        checked(
            deserializer,
            side::is_decoding_ours,
            |number: u32| PeId::new(number as usize),
            |pe| pe.index() as u64,
        )
    }
}

impl<'de> Deserialize<'de> for CollectionId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        checked(deserializer, side::is_decoding, CollectionId, |id| id.pe_number())
    }
}

impl<'de> Deserialize<'de> for ChareId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let make = |(collection, element)| ChareId { collection, element };
        checked(deserializer, side::is_decoding, make, |id| pe_number_of(*id))
    }
}
