//! “Did you mean”: the nearest of the names there are.

/// How many names a hint lists.
const MOST_NAMES: usize = 12;

/// A hint for a name that does not exist: the nearest one, and a few of those there are.
pub(super) fn hint<'a>(wrong: &str, what: &str, names: impl IntoIterator<Item = &'a str>) -> String {
    let mut names: Vec<&str> = names.into_iter().collect();
    names.sort_unstable();
    names.dedup();
    let meant = nearest(wrong, &names).map(|name| format!("did you mean `{name}`? ")).unwrap_or_default();
    let listed: Vec<_> =
        names.iter().take(MOST_NAMES).map(|name| format!("`{}`", name.escape_debug())).collect();
    let more = names.len().saturating_sub(MOST_NAMES);
    match (listed.is_empty(), more) {
        (true, _) if what == "tools" => "no tool is accepted yet: `toolgate tool review`".to_owned(),
        (true, _) => format!("there are no {what}"),
        (false, 0) => format!("{meant}{what}: {}", listed.join(", ")),
        (false, _) => format!("{meant}{what}: {} and {more} more", listed.join(", ")),
    }
}

/// The name with the fewest changes, if they are few for its length.
fn nearest<'a>(wrong: &str, names: &[&'a str]) -> Option<&'a str> {
    let wrong: Vec<char> = wrong.chars().take(64).collect();
    let most = (wrong.len() / 3).max(1);
    names
        .iter()
        .map(|name| (distance(&wrong, &name.chars().take(64).collect::<Vec<_>>()), *name))
        .filter(|(changes, _)| *changes <= most)
        .min()
        .map(|(_, name)| name)
}

/// How many characters have to be added, removed, replaced, or swapped with the next one.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let at = |row: &[usize], k: usize| row.get(k).copied().unwrap_or(usize::MAX - 1);
            let swapped = i > 0 && j > 0 && a.get(i - 1) == Some(y) && b.get(j - 1) == Some(x);
            let best = (at(&last, j) + usize::from(x != y)).min(at(&last, j + 1) + 1).min(at(&row, j) + 1);
            row.push(if swapped { best.min(at(&before, j - 1) + 1) } else { best });
        }
        before = std::mem::replace(&mut last, row);
    }
    last.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_suggested_if_it_is_near() {
        let names = ["amount", "reference", "to"];
        for (wrong, want) in [
            ("amuont", Some("amount")),
            ("amont", Some("amount")),
            ("referense", Some("reference")),
            ("iban", None),
            ("", None),
            ("tto", Some("to")),
        ] {
            assert_eq!(nearest(wrong, &names), want, "input: {wrong:?}");
        }
    }

    #[test]
    fn hints_list_what_there_is() {
        assert_eq!(
            hint("amuont", "arguments", ["to", "amount"]),
            "did you mean `amount`? arguments: `amount`, `to`"
        );
        assert_eq!(hint("x", "questions", []), "there are no questions");
        assert_eq!(hint("x", "tools", []), "no tool is accepted yet: `toolgate tool review`");
        let many: Vec<_> = (10..40).map(|n| format!("tool{n}")).collect();
        assert!(hint("zzzzzz", "tools", many.iter().map(String::as_str)).ends_with("`tool21` and 18 more"));
    }
}
