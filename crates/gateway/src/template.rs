//! Whether a URI may have come from a URI template (RFC 6570).
//!
//! It only decides which server is asked, not what may be read: the server and the policy see the whole URI.

/// How many expressions a template may have; one with more fits nothing.
const MAX_EXPRESSIONS: usize = 16;

/// Whether a URI can be had from a template by filling in its expressions. Each expression stands for any text; without
/// an operator that lets slashes through (`+`, `#`, `/`, `?`, `&`, `;`), for one that is not empty and has none.
#[must_use]
pub fn fits(template: &str, uri: &str) -> bool {
    let Some(parts) = parts(template) else {
        return false;
    };
    follow(&parts, uri)
}

enum Part<'a> {
    Anything,
    Literal(&'a str),
    Segment,
}

fn parts(template: &str) -> Option<Vec<Part<'_>>> {
    let mut parts = Vec::new();
    let mut rest = template;
    while let Some((literal, after)) = rest.split_once('{') {
        let (expression, after) = after.split_once('}')?;
        if parts.len() > 2 * MAX_EXPRESSIONS {
            return None;
        }
        parts.push(Part::Literal(literal));
        let wide = expression.starts_with(['+', '#', '/', '?', '&', ';']);
        parts.push(if wide { Part::Anything } else { Part::Segment });
        rest = after;
    }
    parts.push(Part::Literal(rest));
    Some(parts)
}

/// Follows the parts through the text, keeping all places at once that they can have come to: no backtracking.
fn follow(parts: &[Part<'_>], text: &str) -> bool {
    let bytes = text.as_bytes();
    let mut places = vec![false; bytes.len() + 1];
    if let Some(first) = places.first_mut() {
        *first = true;
    }
    for part in parts {
        let mut next = vec![false; places.len()];
        let mut open = false;
        for (at, reached) in places.iter().enumerate() {
            match part {
                Part::Literal(literal) => {
                    let fits = bytes.get(at..).is_some_and(|rest| rest.starts_with(literal.as_bytes()));
                    if *reached
                        && fits
                        && let Some(place) = next.get_mut(at + literal.len())
                    {
                        *place = true;
                    }
                }
                Part::Anything => {
                    open |= *reached;
                    if open && let Some(place) = next.get_mut(at) {
                        *place = true;
                    }
                }
                Part::Segment => {
                    if open && let Some(place) = next.get_mut(at) {
                        *place = true;
                    }
                    // From here on, unless the next byte ends it.
                    open = (open || *reached) && bytes.get(at) != Some(&b'/');
                }
            }
        }
        places = next;
    }
    places.last() == Some(&true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_fit_templates_or_not() {
        for (template, uri, want) in [
            ("file:///a", "file:///a", true),
            ("file:///a", "file:///ab", false),
            ("test://{id}/data", "test://7/data", true),
            ("test://{id}/data", "test:///data", false),
            ("test://{id}/data", "test://7/8/data", false),
            ("test://{id}/data", "test://7/data/x", false),
            ("file:///{+path}", "file:///a/b/c", true),
            ("file:///{+path}", "file:///", true),
            ("a{x}{y}", "abc", true),
            ("a{x}{y}", "ab", false),
            ("a{?q}", "a?q=1", true),
            ("{a}", "", false),
            ("{a", "b", false),
            ("", "", true),
            ("é{x}", "éa", true),
        ] {
            assert_eq!(fits(template, uri), want, "template {template:?}, uri {uri:?}");
        }
        let many = "{a}".repeat(40);
        assert!(!fits(&many, &"x".repeat(100)));
    }
}
