//! Reading values that keep nothing of the bytes that they are read from.
//!
//! serde's bound for that is `for<'de> Deserialize<'de>`, which the compiler checks too late for [`super::Of`]: a `&'static str` in the
//! arguments of an entry would be an error, and not something that stays in its process. Here the bound is `Deserialize<'static>`. The
//! deserializer claims to read from what lives for ever, and lends nothing of it: where the other would lend, it hands out what must be
//! copied. So a type that wants to borrow gets an error when it is read, and nothing ever borrows.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error, MapAccess, SeqAccess, VariantAccess, Visitor,
};

/// A deserializer of something that lends nothing. Sequences do not claim to be longer than what is left to be read, so that nobody
/// makes room for more.
pub(super) struct Owned<'a, D>(D, usize, PhantomData<&'a ()>);

impl<'a, D> Owned<'a, D> {
    /// Reads from so many bytes.
    pub(super) fn new(inner: D, bytes: usize) -> Self {
        Owned(inner, bytes, PhantomData)
    }
}

macro_rules! forward {
    ($($method:ident($($arg:ident: $ty:ty),*))*) => {$(
        #[inline]
        fn $method<V: Visitor<'static>>(self, $($arg: $ty,)* visitor: V) -> Result<V::Value, D::Error> {
            self.0.$method($($arg,)* Owned::new(visitor, self.1))
        }
    )*};
}

impl<'a, D: Deserializer<'a>> Deserializer<'static> for Owned<'a, D> {
    type Error = D::Error;

    forward! {
        deserialize_any() deserialize_bool()
        deserialize_i8() deserialize_i16() deserialize_i32() deserialize_i64() deserialize_i128()
        deserialize_u8() deserialize_u16() deserialize_u32() deserialize_u64() deserialize_u128()
        deserialize_f32() deserialize_f64() deserialize_char()
        deserialize_str() deserialize_string() deserialize_bytes() deserialize_byte_buf()
        deserialize_option() deserialize_unit() deserialize_seq() deserialize_map()
        deserialize_identifier() deserialize_ignored_any()
        deserialize_unit_struct(name: &'static str)
        deserialize_newtype_struct(name: &'static str)
        deserialize_tuple(len: usize)
        deserialize_tuple_struct(name: &'static str, len: usize)
        deserialize_struct(name: &'static str, fields: &'static [&'static str])
        deserialize_enum(name: &'static str, variants: &'static [&'static str])
    }

    fn is_human_readable(&self) -> bool {
        self.0.is_human_readable()
    }
}

macro_rules! visit {
    ($($method:ident: $ty:ty,)*) => {$(
        #[inline]
        fn $method<E: Error>(self, value: $ty) -> Result<V::Value, E> {
            self.0.$method(value)
        }
    )*};
}

impl<'a, V: Visitor<'static>> Visitor<'a> for Owned<'a, V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.expecting(f)
    }

    visit! {
        visit_bool: bool,
        visit_i8: i8, visit_i16: i16, visit_i32: i32, visit_i64: i64, visit_i128: i128,
        visit_u8: u8, visit_u16: u16, visit_u32: u32, visit_u64: u64, visit_u128: u128,
        visit_f32: f32, visit_f64: f64, visit_char: char,
        visit_str: &str, visit_string: String, visit_bytes: &[u8], visit_byte_buf: Vec<u8>,
    }

    #[inline]
    fn visit_borrowed_str<E: Error>(self, value: &'a str) -> Result<V::Value, E> {
        self.0.visit_str(value)
    }

    #[inline]
    fn visit_borrowed_bytes<E: Error>(self, value: &'a [u8]) -> Result<V::Value, E> {
        self.0.visit_bytes(value)
    }

    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        self.0.visit_none()
    }

    fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
        self.0.visit_unit()
    }

    fn visit_some<D: Deserializer<'a>>(self, inner: D) -> Result<V::Value, D::Error> {
        self.0.visit_some(Owned::new(inner, self.1))
    }

    fn visit_newtype_struct<D: Deserializer<'a>>(self, inner: D) -> Result<V::Value, D::Error> {
        self.0.visit_newtype_struct(Owned::new(inner, self.1))
    }

    #[inline]
    fn visit_seq<A: SeqAccess<'a>>(self, inner: A) -> Result<V::Value, A::Error> {
        self.0.visit_seq(Owned::new(inner, self.1))
    }

    fn visit_map<A: MapAccess<'a>>(self, inner: A) -> Result<V::Value, A::Error> {
        self.0.visit_map(Owned::new(inner, self.1))
    }

    fn visit_enum<A: EnumAccess<'a>>(self, inner: A) -> Result<V::Value, A::Error> {
        self.0.visit_enum(Owned::new(inner, self.1))
    }
}

impl<'a, A: SeqAccess<'a>> SeqAccess<'static> for Owned<'a, A> {
    type Error = A::Error;

    #[inline]
    fn next_element_seed<T: DeserializeSeed<'static>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, A::Error> {
        self.0.next_element_seed(Owned::new(seed, self.1))
    }

    fn size_hint(&self) -> Option<usize> {
        self.0.size_hint().map(|count| count.min(self.1))
    }
}

impl<'a, A: MapAccess<'a>> MapAccess<'static> for Owned<'a, A> {
    type Error = A::Error;

    fn next_key_seed<T: DeserializeSeed<'static>>(&mut self, seed: T) -> Result<Option<T::Value>, A::Error> {
        self.0.next_key_seed(Owned::new(seed, self.1))
    }

    fn next_value_seed<T: DeserializeSeed<'static>>(&mut self, seed: T) -> Result<T::Value, A::Error> {
        self.0.next_value_seed(Owned::new(seed, self.1))
    }

    fn size_hint(&self) -> Option<usize> {
        self.0.size_hint().map(|count| count.min(self.1))
    }
}

impl<'a, A: EnumAccess<'a>> EnumAccess<'static> for Owned<'a, A> {
    type Error = A::Error;
    type Variant = Owned<'a, A::Variant>;

    fn variant_seed<T: DeserializeSeed<'static>>(
        self,
        seed: T,
    ) -> Result<(T::Value, Self::Variant), A::Error> {
        let (value, variant) = self.0.variant_seed(Owned::new(seed, self.1))?;
        Ok((value, Owned::new(variant, self.1)))
    }
}

impl<'a, A: VariantAccess<'a>> VariantAccess<'static> for Owned<'a, A> {
    type Error = A::Error;

    fn unit_variant(self) -> Result<(), A::Error> {
        self.0.unit_variant()
    }

    fn newtype_variant_seed<T: DeserializeSeed<'static>>(self, seed: T) -> Result<T::Value, A::Error> {
        self.0.newtype_variant_seed(Owned::new(seed, self.1))
    }

    fn tuple_variant<V: Visitor<'static>>(self, len: usize, visitor: V) -> Result<V::Value, A::Error> {
        self.0.tuple_variant(len, Owned::new(visitor, self.1))
    }

    fn struct_variant<V: Visitor<'static>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        self.0.struct_variant(fields, Owned::new(visitor, self.1))
    }
}

impl<'a, T: DeserializeSeed<'static>> DeserializeSeed<'a> for Owned<'a, T> {
    type Value = T::Value;

    #[inline]
    fn deserialize<D: Deserializer<'a>>(self, inner: D) -> Result<T::Value, D::Error> {
        self.0.deserialize(Owned::new(inner, self.1))
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;
    use std::collections::BTreeMap;

    use serde::{Deserialize, Serialize};

    use super::super::{Decoder, Encoder};

    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    enum Kind {
        Unit,
        One(String),
        Two(u8, Option<Box<Kind>>),
        Named { at: (f32, char), list: Vec<Vec<u8>> },
    }

    fn there_and_back<T: Serialize + Deserialize<'static> + 'static>(value: &T) -> Result<T, String> {
        let mut encoder = Encoder::default();
        encoder.put(value).expect("it can be encoded");
        let mut decoder = Decoder::new(&encoder.bytes, Vec::new());
        let back = decoder.take().map_err(|error| error.to_string())?;
        decoder.end().expect("all of it was read");
        Ok(back)
    }

    #[test]
    fn values_of_every_shape_come_back() {
        let named = Kind::Named { at: (1.5, 'x'), list: vec![vec![], vec![1, 2]] };
        let kinds = vec![
            Kind::Unit,
            Kind::One("text".into()),
            Kind::Two(3, Some(Box::new(Kind::Unit))),
            Kind::Two(4, None),
            named,
        ];
        assert_eq!(there_and_back(&kinds).as_ref(), Ok(&kinds));
        let map = BTreeMap::from([(i128::MIN, "a".to_owned()), (7, "b".to_owned())]);
        assert_eq!(there_and_back(&map), Ok(map));
        let text: Cow<'static, str> = "lent".into();
        assert_eq!(there_and_back(&text), Ok(text));
        assert_eq!(there_and_back(&((), [true, false], -1.5_f64)), Ok(((), [true, false], -1.5)));
    }

    #[test]
    fn nothing_is_lent() {
        let error = there_and_back(&"text").expect_err("nobody owns the text");
        assert!(error.contains("borrowed string") || error.contains("cannot be read"), "{error}");
    }
}
