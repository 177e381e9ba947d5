//! Proxies in messages. They are ids, which mean the same in all processes of a run, and nothing in another run.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Stays, side};
use crate::call::OTHER_RUN;
use crate::chares::Chare;
use crate::current;
use crate::ids::RunId;
use crate::proxy::{Array, Element, Group, SparseArray};

/// Of a proxy of this run. It would be one of the run that decodes it: so one of another run is refused.
fn to_message<S: Serializer>(run: RunId, parts: &impl Serialize, serializer: S) -> Result<S::Ok, S::Error> {
    match side::encoding_run() {
        None => Err(serde::ser::Error::custom("proxies mean something in messages of their run only")),
        Some(encoding) if encoding != run => Err(side::refuse(Stays::new(OTHER_RUN))),
        Some(_) => parts.serialize(serializer),
    }
}

fn of_message<'de, P: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<P, D::Error> {
    if !side::is_decoding() {
        return Err(serde::de::Error::custom("proxies mean something in messages of their run only"));
    }
    P::deserialize(deserializer)
}

impl<C: Chare<Index: Serialize>> Serialize for Element<C> {
    /// # Errors
    /// Anywhere but in a message of its run.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        to_message(self.run(), &(self.id(), self.index()), serializer)
    }
}

impl<'de, C: Chare<Index: Deserialize<'de>>> Deserialize<'de> for Element<C> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        of_message(deserializer).map(|(id, index)| Element::new(current::run_or_none(), id, index))
    }
}

impl<C: Chare<Index: Serialize>> Serialize for Array<C> {
    /// # Errors
    /// Anywhere but in a message of its run.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (run, id, shape) = self.parts();
        to_message(run, &(id, shape), serializer)
    }
}

impl<'de, C: Chare<Index: Deserialize<'de>>> Deserialize<'de> for Array<C> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        of_message(deserializer).map(|(id, shape)| Array::new(current::run_or_none(), id, shape))
    }
}

macro_rules! by_id {
    ($($proxy:ident)*) => {$(
        impl<C: Chare> Serialize for $proxy<C> {
            /// # Errors
            /// Anywhere but in a message of its run.
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let (run, id) = self.ids();
                to_message(run, &id, serializer)
            }
        }

        impl<'de, C: Chare> Deserialize<'de> for $proxy<C> {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                of_message(deserializer).map(|id| $proxy::new(current::run_or_none(), id))
            }
        }
    )*};
}

by_id!(SparseArray Group);
