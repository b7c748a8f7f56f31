//! Where in documents of one shape something stands.

use std::fmt;
use std::str::FromStr;

use super::{ObjectWriter, Value, quote};

/// The most steps that a path has.
const MAX_STEPS: usize = 16;

/// A place in documents of one shape: `to`, `message.to`, each element of a list (`cc[]`), or a member of each (`people[].email`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FieldPath(Vec<Step>);

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Step {
    /// A member of an object.
    Member(String),
    /// Each element of a list.
    Each,
}

/// A text that is no path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` names no place: write `to`, `message.to`, `cc[]` or `people[].email`", .0.escape_debug())]
pub struct FieldPathError(String);

impl FromStr for FieldPath {
    type Err = FieldPathError;

    fn from_str(text: &str) -> Result<Self, FieldPathError> {
        let mut steps = Vec::new();
        for part in text.split('.') {
            let name = part.trim_end_matches("[]");
            if name.is_empty() || name.contains(['[', ']']) {
                return Err(FieldPathError(text.chars().take(80).collect()));
            }
            steps.push(Step::Member(name.to_owned()));
            steps.extend((name.len()..part.len()).step_by(2).map(|_each| Step::Each));
        }
        if steps.len() > MAX_STEPS {
            Err(FieldPathError(text.chars().take(80).collect()))
        } else {
            Ok(Self(steps))
        }
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, step) in self.0.iter().enumerate() {
            match step {
                Step::Member(name) if at == 0 => f.write_str(name)?,
                Step::Member(name) => write!(f, ".{name}")?,
                Step::Each => f.write_str("[]")?,
            }
        }
        Ok(())
    }
}

impl Value<'_> {
    /// The value with other strings in these places: `edit` is given each that stands there. What is no string there stays, and so
    /// does all else.
    #[must_use]
    pub fn with_strings(&self, path: &FieldPath, edit: &mut dyn FnMut(&str) -> String) -> Vec<u8> {
        with_strings(*self, &path.0, edit)
    }
}

/// Goes as deep as there are steps.
fn with_strings(value: Value<'_>, steps: &[Step], edit: &mut dyn FnMut(&str) -> String) -> Vec<u8> {
    match steps.split_first() {
        None => value.as_str().map_or_else(|| value.raw().to_vec(), |text| quote(&edit(text)).into_bytes()),
        Some((Step::Member(wanted), rest)) if value.is_object() => {
            let writer = value.members().fold(ObjectWriter::new(), |writer, (name, value)| {
                if name == wanted {
                    writer.raw(name, &with_strings(value, rest, edit))
                } else {
                    writer.raw(name, value.raw())
                }
            });
            writer.finish()
        }
        Some((Step::Each, rest)) if value.is_array() => {
            let elements: Vec<_> =
                value.elements().map(|element| with_strings(element, rest, edit)).collect();
            [b"[", elements.join(&b","[..]).as_slice(), b"]"].concat()
        }
        Some(_elsewhere) => value.raw().to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::{Document, Limits};

    #[test]
    fn strings_in_their_places_change_and_nothing_else() {
        let text = r#"{"to":"a","cc":["b",1,["c"],{"to":"d"}],"m":{"to":"e","people":[{"email":"f"},{"email":2},"g"]},"\u0074":"h"}"#;
        let document = Document::parse(text.as_bytes(), &Limits::default()).unwrap();
        for (path, from, to) in [
            ("to", r#""to":"a""#, r#""to":"<a>""#),
            ("cc[]", r#"["b",1,"#, r#"["<b>",1,"#),
            ("cc[][]", r#"["c"]"#, r#"["<c>"]"#),
            ("cc[].to", r#"{"to":"d"}"#, r#"{"to":"<d>"}"#),
            ("m.to", r#""to":"e""#, r#""to":"<e>""#),
            ("m.people[].email", r#"{"email":"f"}"#, r#"{"email":"<f>"}"#),
            ("t", r#""h""#, r#""<h>""#),
            ("cc", "", ""),
            ("m", "", ""),
            ("to.x", "", ""),
            ("to[]", "", ""),
            ("nothing", "", ""),
        ] {
            let path: FieldPath = path.parse().unwrap();
            let got = document.root().with_strings(&path, &mut |text| format!("<{text}>"));
            let want = text.replace(from, to).replace("\\u0074", "t");
            assert_eq!(String::from_utf8(got).unwrap().replace("\\u0074", "t"), want, "{path}");
        }
    }

    #[test]
    fn paths_read_back_and_others_are_refused() {
        for path in ["to", "a.b", "a[]", "a[][]", "a[].b-c.d[]", "ü.$x"] {
            assert_eq!(path.parse::<FieldPath>().map(|path| path.to_string()), Ok(path.to_owned()));
        }
        let deep = ["a"; 17].join(".");
        for wrong in ["", ".", "a.", ".a", "[]", "a.[]", "a[0]", "a[", "a]", "[]a", "a[]b", &deep] {
            assert!(wrong.parse::<FieldPath>().is_err(), "{wrong}");
        }
    }
}
