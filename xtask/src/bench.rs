//! The benchmarks, as one table.
//!
//! A benchmark is a `[[bench]]` of any package here, with `harness = false`. It prints what it measured, one line
//! each: `bench: ` and an object with `name`, `value`, `unit` (a text), and, if there is one, `direct` (the same
//! without Toolgate, measured in the same run) and `promise` (what SPECIFICATION.md says, such as `<= 0.15`).

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::run::{Workspace, output, say};

/// Runs all benchmarks, or those named, and prints a table or one line of JSON each.
pub(crate) fn run(workspace: &Workspace, names: &[String], json: bool) -> Result<()> {
    let benches = benches(workspace)?;
    if let Some(unknown) = names.iter().find(|name| !benches.iter().any(|(_, bench)| bench == *name)) {
        let known: Vec<_> = benches.iter().map(|(_, bench)| bench.as_str()).collect();
        bail!("`{unknown}` is no benchmark; there are: {}", known.join(", "));
    }
    let mut rows = Vec::new();
    for (package, bench) in benches.iter().filter(|(_, bench)| names.is_empty() || names.contains(bench)) {
        if !json {
            say(&format!("measuring {bench}"));
        }
        let text =
            output(&mut workspace.cargo(["bench", "--quiet", "--locked", "-p", package, "--bench", bench]))?;
        for line in text.lines().filter_map(|line| line.strip_prefix("bench: ")) {
            rows.push(serde_json::from_str(line).with_context(|| format!("{bench} printed `{line}`"))?);
        }
    }
    match json {
        true => rows.iter().for_each(|row: &Value| println!("{row}")),
        false => print!("{}", table(&rows)),
    }
    let broken = rows.iter().filter(|row| kept(row) == Some(false)).count();
    match broken {
        0 => Ok(()),
        _ => bail!("{broken} promises are not kept"),
    }
}

/// The package and name of every benchmark.
fn benches(workspace: &Workspace) -> Result<Vec<(String, String)>> {
    let text = output(&mut workspace.cargo(["metadata", "--format-version", "1", "--no-deps", "--locked"]))?;
    let metadata: Value = serde_json::from_str(&text)?;
    let list =
        |value: &Value, name: &str| value.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
    let mut benches = Vec::new();
    for package in list(&metadata, "packages") {
        for target in list(&package, "targets") {
            if list(&target, "kind").iter().any(|kind| kind == "bench") {
                benches.push((text_of(&package, "name"), text_of(&target, "name")));
            }
        }
    }
    Ok(benches)
}

fn text_of(value: &Value, name: &str) -> String {
    match value.get(name) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Null) | None => String::new(),
        Some(other) => other.to_string(),
    }
}

/// Whether the promise of a row is kept; `None` if it has none.
fn kept(row: &Value) -> Option<bool> {
    let value = row.get("value")?.as_f64()?;
    let promise = row.get("promise")?.as_str()?;
    if let Some(limit) = promise.strip_prefix("<=") {
        return Some(value <= limit.trim().parse().ok()?);
    }
    Some(value >= promise.strip_prefix(">=")?.trim().parse().ok()?)
}

fn table(rows: &[Value]) -> String {
    let mut lines = vec![["benchmark", "value", "unit", "direct", "ratio", "promise", ""].map(str::to_owned)];
    for row in rows {
        let ratio =
            match (row.get("value").and_then(Value::as_f64), row.get("direct").and_then(Value::as_f64)) {
                (Some(value), Some(direct)) if direct != 0.0 => format!("{:.2}", value / direct),
                _ => String::new(),
            };
        let verdict = match kept(row) {
            Some(true) => "kept",
            Some(false) => "NOT KEPT",
            None => "",
        };
        let of = |name| text_of(row, name);
        lines.push([
            of("name"),
            of("value"),
            of("unit"),
            of("direct"),
            ratio,
            of("promise"),
            verdict.to_owned(),
        ]);
    }
    let widths: [usize; 7] = std::array::from_fn(|at| {
        lines.iter().filter_map(|line| line.get(at)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    });
    let mut text = String::new();
    for line in &lines {
        let cells = line.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_promise_is_kept_or_not() {
        for (row, want) in [
            (json!({"value": 0.1, "promise": "<= 0.15"}), Some(true)),
            (json!({"value": 0.2, "promise": "<= 0.15"}), Some(false)),
            (json!({"value": 90_000, "promise": ">= 80000"}), Some(true)),
            (json!({"value": 70_000, "promise": ">= 80000"}), Some(false)),
            (json!({"value": 1}), None),
        ] {
            assert_eq!(kept(&row), want, "row: {row}");
        }
    }
}
