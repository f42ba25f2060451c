//! Sections as values of other types, through serde: what stands on the wire as text becomes what
//! the type wants, `yes` and `no` become booleans.

use std::fmt;

use serde::Deserializer;
use serde::de::value::StrDeserializer;
use serde::de::{self, DeserializeSeed, IntoDeserializer, MapAccess, SeqAccess, Visitor};
use serde::forward_to_deserialize_any;

use crate::section::{Item, Section, Value};

/// What is wrong with a value; never quotes one that is not a number or a word of a fixed set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeError(String);

impl fmt::Display for DeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for DeError {}

impl de::Error for DeError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

/// A deserializer of a section, for those who want to wrap it.
pub fn from_section(section: &Section) -> impl Deserializer<'_, Error = DeError> {
    Tree::Section(section)
}

#[derive(Clone, Copy)]
enum Tree<'a> {
    Section(&'a Section),
    List(&'a [Value]),
    Value(&'a Value),
}

impl<'a> From<&'a Item> for Tree<'a> {
    fn from(item: &'a Item) -> Self {
        match item {
            Item::Value(value) => Self::Value(value),
            Item::List(values) => Self::List(values),
            Item::Section(section) => Self::Section(section),
        }
    }
}

impl<'a> Tree<'a> {
    fn text(self) -> Result<&'a str, DeError> {
        match self {
            Self::Value(value) => value
                .text()
                .ok_or_else(|| DeError("is not text".to_owned())),
            Self::List(_) => Err(DeError("is a list, one value is expected".to_owned())),
            Self::Section(_) => Err(DeError("is a section, one value is expected".to_owned())),
        }
    }

    fn number<T: std::str::FromStr>(self) -> Result<T, DeError> {
        let text = self.text()?.trim();
        text.parse()
            .map_err(|_| DeError(format!("\"{text}\" is not a number of this size")))
    }
}

macro_rules! numbers {
    ($($method:ident $visit:ident)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DeError> {
            visitor.$visit(self.number()?)
        })*
    };
}

impl<'de> Deserializer<'de> for Tree<'de> {
    type Error = DeError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DeError> {
        match self {
            Self::Section(_) => self.deserialize_map(visitor),
            Self::List(_) => self.deserialize_seq(visitor),
            Self::Value(_) => visitor.visit_borrowed_str(self.text()?),
        }
    }

    /// The words that strongSwan takes.
    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DeError> {
        match self.text()?.to_ascii_lowercase().as_str() {
            "1" | "yes" | "true" | "enabled" => visitor.visit_bool(true),
            "0" | "no" | "false" | "disabled" => visitor.visit_bool(false),
            _ => Err(DeError("is neither yes nor no".to_owned())),
        }
    }

    numbers! {
        deserialize_u8 visit_u8
        deserialize_u16 visit_u16
        deserialize_u32 visit_u32
        deserialize_u64 visit_u64
        deserialize_i64 visit_i64
    }

    /// A key that is there has a value.
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DeError> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, DeError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DeError> {
        match self {
            Self::Value(value) => visitor.visit_borrowed_bytes(value.octets()),
            _ => visitor.visit_borrowed_str(self.text()?),
        }
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DeError> {
        self.deserialize_bytes(visitor)
    }

    /// One value is a list of one, as not every client knows which keys are lists.
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DeError> {
        match self {
            Self::List(values) => visitor.visit_seq(Items(values.iter())),
            Self::Value(value) => visitor.visit_seq(Items(std::slice::from_ref(value).iter())),
            Self::Section(_) => Err(DeError("is a section, a list is expected".to_owned())),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DeError> {
        match self {
            Self::Section(section) => visitor.visit_map(Entries {
                entries: section.entries(),
                item: None,
            }),
            _ => Err(DeError("is a value, a section is expected".to_owned())),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DeError> {
        self.deserialize_map(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DeError> {
        let word: StrDeserializer<'_, DeError> = self.text()?.into_deserializer();
        visitor.visit_enum(word)
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i128 u128 f32 f64 char str string unit unit_struct tuple tuple_struct identifier
        ignored_any
    }
}

struct Items<'a>(std::slice::Iter<'a, Value>);

impl<'de> SeqAccess<'de> for Items<'de> {
    type Error = DeError;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, DeError> {
        let next = self.0.next();
        next.map(|value| seed.deserialize(Tree::Value(value)))
            .transpose()
    }
}

struct Entries<'a, I> {
    entries: I,
    item: Option<&'a Item>,
}

impl<'de, I: Iterator<Item = (&'de str, &'de Item)>> MapAccess<'de> for Entries<'de, I> {
    type Error = DeError;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, DeError> {
        let Some((name, item)) = self.entries.next() else {
            return Ok(None);
        };
        self.item = Some(item);
        let name: StrDeserializer<'_, DeError> = name.into_deserializer();
        seed.deserialize(name).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, DeError> {
        let item = self.item.take();
        let item = item.ok_or_else(|| DeError("has no value".to_owned()))?;
        seed.deserialize(Tree::from(item))
    }
}
