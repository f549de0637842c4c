//! JSON as the OpenAPI document describes it. Without this, serde also reads an object from a list, and refuses `1.0` as
//! an integer, which JSON Schema accepts.

use std::fmt;

use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Error, MapAccess, SeqAccess, Unexpected,
    VariantAccess, Visitor,
};

/// Reads one JSON value that fills the whole text.
pub(crate) fn from_slice<T: DeserializeOwned>(json: &[u8]) -> serde_json::Result<T> {
    let mut from = serde_json::Deserializer::from_slice(json);
    let value = T::deserialize(Strict(&mut from))?;
    from.end()?;
    Ok(value)
}

/// Passes each call on to the inner value, so that nested values are read as strictly as the outermost.
struct Strict<T>(T);

/// A visitor that accepts the expected kind of value, as JSON Schema does.
struct StrictVisitor<V> {
    visitor: V,
    expected: Expected,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Expected {
    Anything,
    Integer,
    Object,
}

fn wrap<V>(visitor: V) -> StrictVisitor<V> {
    StrictVisitor { visitor, expected: Expected::Anything }
}

fn wrap_integer<V>(visitor: V) -> StrictVisitor<V> {
    StrictVisitor { visitor, expected: Expected::Integer }
}

fn wrap_object<V>(visitor: V) -> StrictVisitor<V> {
    StrictVisitor { visitor, expected: Expected::Object }
}

macro_rules! deserialize {
    ($wrap:ident: $($method:ident),+ $(,)?) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
            self.0.$method($wrap(visitor))
        })+
    };
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Strict<D> {
    type Error = D::Error;

    deserialize!(
        wrap_integer: deserialize_i8,
        deserialize_i16,
        deserialize_i32,
        deserialize_i64,
        deserialize_i128,
        deserialize_u8,
        deserialize_u16,
        deserialize_u32,
        deserialize_u64,
        deserialize_u128,
    );

    deserialize!(
        wrap: deserialize_any,
        deserialize_bool,
        deserialize_f32,
        deserialize_f64,
        deserialize_char,
        deserialize_str,
        deserialize_string,
        deserialize_bytes,
        deserialize_byte_buf,
        deserialize_option,
        deserialize_unit,
        deserialize_seq,
        deserialize_map,
        deserialize_identifier,
        deserialize_ignored_any,
    );

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_unit_struct(name, wrap(visitor))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_newtype_struct(name, wrap(visitor))
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_tuple(len, wrap(visitor))
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_tuple_struct(name, len, wrap(visitor))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_struct(name, fields, wrap_object(visitor))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_enum(name, variants, wrap(visitor))
    }

    fn is_human_readable(&self) -> bool {
        self.0.is_human_readable()
    }
}

macro_rules! visit {
    ($($method:ident: $type:ty),+ $(,)?) => {
        $(fn $method<E: Error>(self, value: $type) -> Result<V::Value, E> {
            self.visitor.$method(value)
        })+
    };
}

impl<'de, V: Visitor<'de>> Visitor<'de> for StrictVisitor<V> {
    type Value = V::Value;

    fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.visitor.expecting(to)
    }

    visit!(
        visit_bool: bool,
        visit_i8: i8,
        visit_i16: i16,
        visit_i32: i32,
        visit_i64: i64,
        visit_i128: i128,
        visit_u8: u8,
        visit_u16: u16,
        visit_u32: u32,
        visit_u64: u64,
        visit_u128: u128,
        visit_f32: f32,
        visit_char: char,
        visit_str: &str,
        visit_borrowed_str: &'de str,
        visit_string: String,
        visit_bytes: &[u8],
        visit_borrowed_bytes: &'de [u8],
        visit_byte_buf: Vec<u8>,
    );

    fn visit_f64<E: Error>(self, value: f64) -> Result<V::Value, E> {
        // An integer too large for u64 arrives here rounded, perhaps to a bound: the bounds are excluded.
        match self.expected {
            Expected::Integer if value.fract() != 0.0 => self.visitor.visit_f64(value),
            Expected::Integer if value >= 0.0 && value < u64::MAX as f64 => {
                self.visitor.visit_u64(value as u64)
            }
            Expected::Integer if value < 0.0 && value > i64::MIN as f64 => {
                self.visitor.visit_i64(value as i64)
            }
            _ => self.visitor.visit_f64(value),
        }
    }

    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        self.visitor.visit_none()
    }

    fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
        self.visitor.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, from: D) -> Result<V::Value, D::Error> {
        self.visitor.visit_some(Strict(from))
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, from: D) -> Result<V::Value, D::Error> {
        self.visitor.visit_newtype_struct(Strict(from))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<V::Value, A::Error> {
        if self.expected == Expected::Object {
            return Err(A::Error::invalid_type(Unexpected::Seq, &self));
        }
        self.visitor.visit_seq(Strict(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<V::Value, A::Error> {
        self.visitor.visit_map(Strict(map))
    }

    fn visit_enum<A: EnumAccess<'de>>(self, one: A) -> Result<V::Value, A::Error> {
        self.visitor.visit_enum(Strict(one))
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Strict<S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<S::Value, D::Error> {
        self.0.deserialize(Strict(from))
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Strict<A> {
    type Error = A::Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        self.0.next_element_seed(Strict(seed))
    }

    fn size_hint(&self) -> Option<usize> {
        self.0.size_hint()
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Strict<A> {
    type Error = A::Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        self.0.next_key_seed(Strict(seed))
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        self.0.next_value_seed(Strict(seed))
    }

    fn size_hint(&self) -> Option<usize> {
        self.0.size_hint()
    }
}

impl<'de, A: EnumAccess<'de>> EnumAccess<'de> for Strict<A> {
    type Error = A::Error;
    type Variant = Strict<A::Variant>;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self::Variant), A::Error> {
        let (name, content) = self.0.variant_seed(Strict(seed))?;
        Ok((name, Strict(content)))
    }
}

impl<'de, A: VariantAccess<'de>> VariantAccess<'de> for Strict<A> {
    type Error = A::Error;

    fn unit_variant(self) -> Result<(), A::Error> {
        self.0.unit_variant()
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, A::Error> {
        self.0.newtype_variant_seed(Strict(seed))
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, A::Error> {
        self.0.tuple_variant(len, wrap(visitor))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        self.0.struct_variant(fields, wrap_object(visitor))
    }
}

#[cfg(test)]
mod tests {
    use kiln_api::{ChangeJob, ChangePools, Collect, RerenderJob, SetShare, SubmitJob, UploadCreate};
    use serde_json::json;

    use super::*;

    fn is_read<T: DeserializeOwned>(json: &serde_json::Value) -> bool {
        from_slice::<T>(json.to_string().as_bytes()).is_ok()
    }

    #[test]
    fn a_list_is_not_an_object_at_any_depth() {
        let list = json!([]);
        assert!(!is_read::<Collect>(&list) && !is_read::<Option<RerenderJob>>(&list));
        assert!(
            !is_read::<SetShare>(&list) && !is_read::<ChangeJob>(&list) && !is_read::<ChangePools>(&list)
        );
        assert!(!is_read::<UploadCreate>(&json!(["a.blend", 5])));
        let id = "00000000000000aa";
        for bad in [
            json!({"source": {"upload": [id]}}),
            json!({"source": {"upload": {"id": id}, "bundle": {}}}),
            json!({"source": {"upload": {"id": id}}, "requirements": []}),
            json!({"source": {"upload": {"id": id}}, "scheduling": [50]}),
            json!({"source": {"upload": {"id": id}}, "settings": {"resolution": {"pixels": [10, 10]}}}),
            json!({"source": {"upload": {"id": id}}, "settings": {"format": {"png": null}}}),
        ] {
            assert!(!is_read::<SubmitJob>(&bad), "{bad}");
        }
    }

    #[test]
    fn a_number_without_a_fraction_is_an_integer() {
        let read = |text: &str| from_slice::<SetShare>(format!("{{\"weight\":{text}}}").as_bytes()).ok();
        for good in ["7", "7.0", "70e-1", "0.7e1"] {
            assert_eq!(read(good).and_then(|share| share.weight), Some(7), "{good}");
        }
        for bad in ["7.5", "-7.0", "1e10", "1e30", "1e300", "4294967296.0"] {
            assert_eq!(read(bad), None, "{bad}");
        }
        assert_eq!(from_slice::<i64>(b"-7.0").unwrap(), -7);
        for bad in ["-1e19", "1e19", "-9223372036854775809", "9223372036854775808"] {
            assert!(from_slice::<i64>(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(from_slice::<u64>(b"18446744073709551616").is_err());
    }

    #[test]
    fn a_documented_body_is_read() {
        let job = json!({
            "source": {"upload": {"id": "00000000000000aa", "from_the_future": [{}]}},
            "frames": "1-10", "requirements": {"tags": ["a"], "limits": {"nuke": 2}, "gpus": "all"},
            "settings": {"resolution": {"pixels": {"width": 10, "height": 10}}, "format": "png"},
            "policy": {"scripts": "trust"}, "save": {"content": "0".repeat(64), "blend": [255, 1], "read_ms": -1},
            "more": [[], {"a": 1.5e300}, null]
        });
        let strict: SubmitJob = from_slice(job.to_string().as_bytes()).unwrap();
        assert_eq!(strict, serde_json::from_value(job).unwrap());
        assert_eq!(from_slice::<Option<RerenderJob>>(b" null ").unwrap(), None);
        assert!(from_slice::<Collect>(b"{} {}").is_err() && from_slice::<Collect>(b"").is_err());
    }
}
