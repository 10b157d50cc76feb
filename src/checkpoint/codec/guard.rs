//! Between serde and the decoder: counts how deep values nest and how many elements they claim.
//!
//! The decoder itself trusts both: a type that holds itself is followed until the stack ends, which
//! ends the process, and a list of a type without bytes is as long as it says. Texts and byte lists are
//! asked for as borrowed, so that a length beyond the input is refused before anything is allocated.

use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Error, MapAccess, SeqAccess,
    VariantAccess, Visitor,
};

/// How deep values may nest.
pub const MAX_DEPTH: u32 = 128;

/// How many elements may still be claimed by lists and maps.
pub(super) struct Budget(Cell<u64>);

impl Budget {
    /// Enough for any value with at least a byte an element, the question after the last element of
    /// each list counted as one, and for short lists of nothing.
    pub(super) fn of(payload: usize) -> Self {
        Self(Cell::new(2 * payload as u64 + 65_536))
    }

    fn spend<E: Error>(&self) -> Result<(), E> {
        match self.0.get().checked_sub(1) {
            Some(left) => {
                self.0.set(left);
                Ok(())
            }
            None => Err(E::custom("more elements than bytes")),
        }
    }
}

#[derive(Clone, Copy)]
struct Guard<'g> {
    depth: u32,
    /// Whether the elements come from a list whose length the bytes say.
    counting: bool,
    budget: &'g Budget,
}

impl Guard<'_> {
    fn deeper<E: Error>(self, counting: bool) -> Result<Self, E> {
        match self.depth.checked_sub(1) {
            Some(depth) => Ok(Self { depth, counting, ..self }),
            None => Err(E::custom(format_args!("nested deeper than {MAX_DEPTH}"))),
        }
    }

    fn next<E: Error>(self) -> Result<(), E> {
        if self.counting { self.budget.spend() } else { Ok(()) }
    }
}

/// A `T` to be decoded under guard.
pub(super) struct Guarded<'g, T> {
    guard: Guard<'g>,
    of: PhantomData<T>,
}

impl<'g, T> Guarded<'g, T> {
    pub(super) fn new(budget: &'g Budget) -> Self {
        Self { guard: Guard { depth: MAX_DEPTH, counting: false, budget }, of: PhantomData }
    }
}

impl<'de, T: DeserializeOwned> DeserializeSeed<'de> for Guarded<'_, T> {
    type Value = T;

    fn deserialize<D: Deserializer<'de>>(self, inner: D) -> Result<T, D::Error> {
        T::deserialize(Guarding { inner, guard: self.guard })
    }
}

/// Anything of serde's, under guard.
struct Guarding<'g, I> {
    inner: I,
    guard: Guard<'g>,
}

macro_rules! pass {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
            self.inner.$method(visitor)
        }
    )*};
}

macro_rules! deepen {
    ($counting:literal: $($method:ident($($arg:ident: $of:ty),*))*) => {$(
        fn $method<V: Visitor<'de>>(
            self,
            $($arg: $of,)*
            visitor: V,
        ) -> Result<V::Value, D::Error> {
            let guard = self.guard.deeper($counting)?;
            self.inner.$method($($arg,)* Guarding { inner: visitor, guard })
        }
    )*};
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Guarding<'_, D> {
    type Error = D::Error;

    pass! {
        deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64
        deserialize_i128 deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64
        deserialize_u128 deserialize_f32 deserialize_f64 deserialize_char deserialize_str
        deserialize_bytes deserialize_unit
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.inner.deserialize_str(visitor)
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.inner.deserialize_bytes(visitor)
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.inner.deserialize_unit_struct(name, visitor)
    }

    deepen! { true: deserialize_seq() deserialize_map() }

    deepen! {
        false:
        deserialize_any()
        deserialize_identifier()
        deserialize_ignored_any()
        deserialize_option()
        deserialize_newtype_struct(name: &'static str)
        deserialize_tuple(len: usize)
        deserialize_tuple_struct(name: &'static str, len: usize)
        deserialize_struct(name: &'static str, fields: &'static [&'static str])
        deserialize_enum(name: &'static str, variants: &'static [&'static str])
    }

    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

macro_rules! visit {
    ($($method:ident($of:ty))*) => {$(
        fn $method<E: Error>(self, value: $of) -> Result<V::Value, E> {
            self.inner.$method(value)
        }
    )*};
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Guarding<'_, V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.expecting(f)
    }

    visit! {
        visit_bool(bool) visit_i8(i8) visit_i16(i16) visit_i32(i32) visit_i64(i64)
        visit_i128(i128) visit_u8(u8) visit_u16(u16) visit_u32(u32) visit_u64(u64)
        visit_u128(u128) visit_f32(f32) visit_f64(f64) visit_char(char)
        visit_str(&str) visit_borrowed_str(&'de str) visit_string(String)
        visit_bytes(&[u8]) visit_borrowed_bytes(&'de [u8]) visit_byte_buf(Vec<u8>)
    }

    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        self.inner.visit_none()
    }

    fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
        self.inner.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        self.inner.visit_some(Guarding { inner, guard: self.guard })
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        self.inner.visit_newtype_struct(Guarding { inner, guard: self.guard })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        self.inner.visit_seq(Guarding { inner, guard: self.guard })
    }

    fn visit_map<A: MapAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        self.inner.visit_map(Guarding { inner, guard: self.guard })
    }

    fn visit_enum<A: EnumAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        self.inner.visit_enum(Guarding { inner, guard: self.guard })
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Guarding<'_, S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, inner: D) -> Result<S::Value, D::Error> {
        self.inner.deserialize(Guarding { inner, guard: self.guard })
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Guarding<'_, A> {
    type Error = A::Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, A::Error> {
        self.guard.next()?;
        self.inner.next_element_seed(Guarding { inner: seed, guard: self.guard })
    }

    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Guarding<'_, A> {
    type Error = A::Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, A::Error> {
        self.guard.next()?;
        self.inner.next_key_seed(Guarding { inner: seed, guard: self.guard })
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        self.inner.next_value_seed(Guarding { inner: seed, guard: self.guard })
    }

    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

impl<'de, 'g, A: EnumAccess<'de>> EnumAccess<'de> for Guarding<'g, A> {
    type Error = A::Error;
    type Variant = Guarding<'g, A::Variant>;

    fn variant_seed<S: DeserializeSeed<'de>>(
        self,
        seed: S,
    ) -> Result<(S::Value, Self::Variant), A::Error> {
        let guard = self.guard;
        let (value, inner) = self.inner.variant_seed(Guarding { inner: seed, guard })?;
        Ok((value, Guarding { inner, guard }))
    }
}

impl<'de, A: VariantAccess<'de>> VariantAccess<'de> for Guarding<'_, A> {
    type Error = A::Error;

    fn unit_variant(self) -> Result<(), A::Error> {
        self.inner.unit_variant()
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, A::Error> {
        self.inner.newtype_variant_seed(Guarding { inner: seed, guard: self.guard })
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, A::Error> {
        self.inner.tuple_variant(len, Guarding { inner: visitor, guard: self.guard })
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        self.inner.struct_variant(fields, Guarding { inner: visitor, guard: self.guard })
    }
}
