//! Device memory and other processes: it does not go there yet, and says so where it is tried.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{DeviceSlice, DeviceVec, HostVec};

macro_rules! stays {
    ($($memory:ident)*) => {$(
        impl<T> Serialize for $memory<T> {
            /// # Errors
            /// Always.
            fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
                Err(serde::ser::Error::custom(concat!(
                    "a `", stringify!($memory), "` does not leave its process: download it, and send that"
                )))
            }
        }

        impl<'de, T> Deserialize<'de> for $memory<T> {
            fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
                Err(serde::de::Error::custom(concat!("a `", stringify!($memory), "` does not leave its process")))
            }
        }
    )*};
}

stays!(DeviceSlice DeviceVec HostVec);
