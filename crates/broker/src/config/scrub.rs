//! What is taken out of what servers say: the key `scrub` of servers and tools, and the table `[scrub]`.

use toolgate_core::json::{FieldPath, FieldPathError};
use toolgate_core::scrub::detect::{Classes, CustomRule, CustomRules, Length};

use super::ConfigError;
use super::reader::Item;
use crate::reveal::Sinks;

/// What is taken out: `["secrets", "pii.card"]`.
pub(super) fn classes(item: &Item<'_>) -> Result<Classes, ConfigError> {
    let names = item.list()?.iter().map(Item::text).collect::<Result<Vec<_>, _>>()?;
    Classes::parse(names).map_err(|error| {
        item.error(error.to_string(), "name some of them; `scrub = []` takes nothing out, and is said aloud")
    })
}

/// The arguments of a tool in which tokens are turned back: `{ to = ["pii.email"] }`.
pub(super) fn sinks(item: &Item<'_>) -> Result<Sinks, ConfigError> {
    let mut sinks = Sinks::new();
    for (path, item) in item.table()?.take_named() {
        let place: FieldPath = path
            .parse()
            .map_err(|error: FieldPathError| item.error(error.to_string(), "name an argument of the tool"))?;
        let of = classes(&item)?;
        if of == Classes::NONE {
            return Err(
                item.error(format!("nothing is turned back in `{place}`"), "name classes, or leave it out")
            );
        }
        sinks.insert(place, of);
    }
    Ok(sinks)
}

/// The table `[scrub]`: rules of one's own, with their examples.
pub(super) fn rules(item: &Item<'_>) -> Result<CustomRules, ConfigError> {
    let mut table = item.table()?;
    let named = table.take("rules").map(|item| item.table()).transpose()?;
    let (mut rules, mut loaded) = (Vec::new(), CustomRules::default());
    for (name, item) in named.map(|mut all| all.take_named()).unwrap_or_default() {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if name.is_empty() || name.len() > 48 || !name.bytes().all(plain) {
            return Err(item.error(
                format!(
                    "`{}` is no name of a rule: it is part of what stands in place of values",
                    name.escape_debug()
                ),
                "use up to 48 of a-z, 0-9 and `-`",
            ));
        }
        rules.push(rule(name, &item)?);
        // Each by itself, so that a complaint says where.
        loaded = CustomRules::load(&rules)
            .map_err(|error| item.error(error.to_string(), "`docs/scrub.md` has an example of a rule"))?;
    }
    table.finish()?;
    Ok(loaded)
}

fn rule(name: &str, item: &Item<'_>) -> Result<CustomRule, ConfigError> {
    let mut table = item.table()?;
    let texts = |item: Option<Item<'_>>| -> Result<Vec<String>, ConfigError> {
        let items = item.map(|item| item.list()).transpose()?.unwrap_or_default();
        items.iter().map(|item| item.text().map(str::to_owned)).collect()
    };
    let text = |item: Option<Item<'_>>| item.map(|item| item.text().map(str::to_owned)).transpose();
    let rule = CustomRule {
        name: name.to_owned(),
        prefix: text(table.take("prefix"))?,
        keywords: texts(table.take("keywords"))?,
        charset: text(table.take("charset"))?,
        length: table.take("length").map(|item| length(&item)).transpose()?,
        examples: texts(table.take("examples"))?,
        not_examples: texts(table.take("not_examples"))?,
    };
    table.finish()?;
    Ok(rule)
}

fn length(item: &Item<'_>) -> Result<Length, ConfigError> {
    if item.is_text() {
        return Ok(Length::Range(item.text()?.to_owned()));
    }
    Ok(Length::Exact(usize::try_from(item.number(1, 4096)?).unwrap_or(usize::MAX)))
}
