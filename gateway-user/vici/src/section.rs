//! Messages as trees.

use std::fmt;

use zeroize::Zeroize;

/// A value: octets, mostly text, perhaps secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Value(Vec<u8>);

impl Value {
    /// The octets.
    pub fn octets(&self) -> &[u8] {
        &self.0
    }

    /// As text, if it is UTF-8.
    pub fn text(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }
}

impl<T: Into<Vec<u8>>> From<T> for Value {
    fn from(octets: T) -> Self {
        Self(octets.into())
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "({} octets)", self.0.len())
    }
}

impl Drop for Value {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// One value.
    Value(Value),
    /// Values without names.
    List(Vec<Value>),
    /// More names.
    Section(Section),
}

/// A message, or a part of one: names and what they stand for, in the order of the wire. A name can
/// stand there twice; looking it up finds the first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Section {
    entries: Vec<(String, Item)>,
}

impl Section {
    /// One without entries.
    pub const fn new() -> Self {
        Self {
            entries: Vec::new(),
        }
    }

    /// Whether there are no entries.
    pub const fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The entries in their order.
    pub fn entries(&self) -> impl Iterator<Item = (&str, &Item)> {
        self.entries
            .iter()
            .map(|(name, item)| (name.as_str(), item))
    }

    /// What a name stands for.
    pub fn get(&self, name: &str) -> Option<&Item> {
        let mut entries = self.entries.iter();
        entries
            .find(|(known, _)| known == name)
            .map(|(_, item)| item)
    }

    /// A value.
    pub fn value(&self, name: &str) -> Option<&Value> {
        match self.get(name)? {
            Item::Value(value) => Some(value),
            Item::List(_) | Item::Section(_) => None,
        }
    }

    /// A value that is text.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.value(name)?.text()
    }

    /// A list; none is an empty one.
    pub fn list(&self, name: &str) -> &[Value] {
        match self.get(name) {
            Some(Item::List(values)) => values,
            _ => &[],
        }
    }

    /// A section.
    pub fn section(&self, name: &str) -> Option<&Self> {
        match self.get(name)? {
            Item::Section(section) => Some(section),
            Item::Value(_) | Item::List(_) => None,
        }
    }

    /// The sections among the entries.
    pub fn sections(&self) -> impl Iterator<Item = (&str, &Self)> {
        self.entries().filter_map(|(name, item)| match item {
            Item::Section(section) => Some((name, section)),
            Item::Value(_) | Item::List(_) => None,
        })
    }

    /// Puts something at the end.
    pub fn push(&mut self, name: impl Into<String>, item: Item) {
        self.entries.push((name.into(), item));
    }

    /// Puts something in the place of what a name stands for, or at the end.
    pub fn replace(&mut self, name: &str, item: Item) {
        match self.entries.iter_mut().find(|(known, _)| known == name) {
            Some((_, place)) => *place = item,
            None => self.push(name, item),
        }
    }

    /// Takes out what a name stands for.
    pub fn take(&mut self, name: &str) -> Option<Item> {
        let index = self.entries.iter().position(|(known, _)| known == name)?;
        Some(self.entries.remove(index).1)
    }

    /// With a value at the end, as text.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl fmt::Display) -> Self {
        self.push(name, Item::Value(value.to_string().into()));
        self
    }

    /// With a value at the end if there is one.
    #[must_use]
    pub fn with_some(self, name: &str, value: Option<impl fmt::Display>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    /// With octets at the end.
    #[must_use]
    pub fn with_octets(mut self, name: &str, octets: &[u8]) -> Self {
        self.push(name, Item::Value(octets.into()));
        self
    }

    /// With a list of texts at the end.
    #[must_use]
    pub fn with_list<T: fmt::Display>(
        mut self,
        name: &str,
        values: impl IntoIterator<Item = T>,
    ) -> Self {
        let values = values.into_iter().map(|value| value.to_string().into());
        self.push(name, Item::List(values.collect()));
        self
    }

    /// With a section at the end.
    #[must_use]
    pub fn with_section(mut self, name: &str, section: Self) -> Self {
        self.push(name, Item::Section(section));
        self
    }
}
