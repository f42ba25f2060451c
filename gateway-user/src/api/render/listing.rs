//! A list that is shown while it comes.

use std::io::{self, Write};

use crate::api::model::IkeSaInfo;

/// The answer of `gatewayctl sas`, page by page; in the end the same as [`super::sas`], or as the
/// whole [`crate::api::model::Sas`] in JSON.
#[derive(Debug)]
pub struct SaListing<W> {
    out: W,
    json: bool,
    empty: bool,
}

impl<W: Write> SaListing<W> {
    /// A list without entries so far.
    pub const fn new(out: W, json: bool) -> Self {
        Self {
            out,
            json,
            empty: true,
        }
    }

    /// Shows some more.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn page(&mut self, ike_sas: &[IkeSaInfo]) -> io::Result<()> {
        for sa in ike_sas {
            let first = std::mem::take(&mut self.empty);
            if self.json {
                let before = if first {
                    "{\n  \"ike_sas\": [\n"
                } else {
                    ",\n"
                };
                let text = serde_json::to_string_pretty(sa)?;
                let text = text.replace('\n', "\n    ");
                write!(self.out, "{before}    {text}")?;
            } else {
                self.out.write_all(super::ike_sa(sa).as_bytes())?;
            }
        }
        Ok(())
    }

    /// Shows the end.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn end(mut self) -> io::Result<()> {
        let end = match (self.json, self.empty) {
            (true, true) => "{\n  \"ike_sas\": []\n}\n",
            (true, false) => "\n  ]\n}\n",
            (false, true) => super::NO_SAS,
            (false, false) => "",
        };
        self.out.write_all(end.as_bytes())?;
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::model::Sas;

    #[test]
    fn pages_make_the_same_as_the_whole() {
        let text = include_str!("../../../tests/pages/sas.json");
        let one: Sas = serde_json::from_str(text).unwrap();
        for count in 0..3 {
            let ike_sas: Vec<IkeSaInfo> = (0..count).flat_map(|_| one.ike_sas.clone()).collect();
            let whole = Sas { ike_sas };
            for json in [true, false] {
                let mut shown = Vec::new();
                let mut listing = SaListing::new(&mut shown, json);
                for sa in &whole.ike_sas {
                    listing.page(std::slice::from_ref(sa)).unwrap();
                    listing.page(&[]).unwrap();
                }
                listing.end().unwrap();
                let wanted = match json {
                    true => serde_json::to_string_pretty(&whole).unwrap() + "\n",
                    false => crate::api::render::sas(&whole),
                };
                assert_eq!(String::from_utf8(shown).unwrap(), wanted);
            }
        }
    }
}
