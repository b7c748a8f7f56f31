//! The documentation of the code, the links between the pages of the book, and the tests that they name.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Component, Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use crate::run::{EVERYTHING, Workspace, must, say};

/// The pages in which what looks like the name of a test has to be one.
const NAME_TESTS: [&str; 3] = ["SPECIFICATION.md", "THREAT_MODEL.md", "docs/past-vulnerabilities.md"];

/// Builds the documentation with warnings denied, follows every link of every page, and looks for the tests that are named.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let mut doc = workspace.cargo(["doc"]);
    doc.args(EVERYTHING).args(["--no-deps", "--locked"]);
    must(
        "documentation of the code",
        doc.env("RUSTDOCFLAGS", "-D warnings -A rustdoc::private-intra-doc-links"),
    )?;
    let pages = pages(workspace.root())?;
    let broken = broken_links(workspace.root(), &pages);
    if !broken.is_empty() {
        bail!("{} broken links:\n{}", broken.len(), broken.join("\n"));
    }
    let functions = functions(workspace.root())?;
    let mut named = 0;
    let mut missing = Vec::new();
    for page in NAME_TESTS {
        let text =
            pages.get(&workspace.root().join(page)).with_context(|| format!("there is no `{page}`"))?;
        for test in named_tests(text) {
            named += 1;
            if !functions.contains(test) {
                missing.push(format!("{page}: there is no test `{test}`"));
            }
        }
    }
    if !missing.is_empty() {
        bail!("{} tests are named and not there:\n{}", missing.len(), missing.join("\n"));
    }
    say(&format!("{} pages, no broken link; {named} tests are named and there", pages.len()));
    Ok(())
}

/// What is named like a test: between backticks, at least three words with underscores between them.
fn named_tests(text: &str) -> impl Iterator<Item = &str> {
    let quoted = prose(text).flat_map(|line| line.split('`').skip(1).step_by(2));
    let is_one = |name: &&str| {
        let words = name.split('_').filter(|word| !word.is_empty()).count();
        words >= 3
            && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
    };
    quoted.filter(is_one)
}

/// The names of all functions of the workspace.
fn functions(root: &Path) -> Result<BTreeSet<String>> {
    let mut functions = BTreeSet::new();
    let mut folders = vec![root.join("crates"), root.join("xtask")];
    while let Some(folder) = folders.pop() {
        for entry in
            std::fs::read_dir(&folder).with_context(|| format!("could not list `{}`", folder.display()))?
        {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs" || extension == "go") {
                let text = std::fs::read_to_string(&path)?;
                let after = text.split("fn ").skip(1);
                let name = |rest: &str| rest.split(['(', '<']).next().unwrap_or_default().to_owned();
                functions.extend(after.map(name));
            }
        }
    }
    Ok(functions)
}

/// The text of every page at the root and below `docs/`, by its path.
fn pages(root: &Path) -> Result<BTreeMap<PathBuf, String>> {
    let mut pages = BTreeMap::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in
            std::fs::read_dir(&folder).with_context(|| format!("could not list `{}`", folder.display()))?
        {
            let path = entry?.path();
            let is_ours = folder != root || path.file_name().is_some_and(|name| name == "docs");
            if path.is_dir() && is_ours {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                let text = std::fs::read_to_string(&path)?;
                pages.insert(path, text);
            }
        }
    }
    Ok(pages)
}

fn broken_links(root: &Path, pages: &BTreeMap<PathBuf, String>) -> Vec<String> {
    let anchors: BTreeMap<&Path, BTreeSet<String>> =
        pages.iter().map(|(path, text)| (path.as_path(), anchors(text))).collect();
    let mut broken = Vec::new();
    for (page, text) in pages {
        for link in links(text) {
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = match file {
                "" => page.clone(),
                _ => plain(&page.parent().unwrap_or(root).join(file)),
            };
            let known = anchors.get(target.as_path());
            let missing = known.is_none() && !target.exists()
                || !anchor.is_empty() && known.is_some_and(|anchors| !anchors.contains(anchor));
            if missing {
                let page = page.strip_prefix(root).unwrap_or(page);
                broken.push(format!("{}: `{link}` leads nowhere", page.display()));
            }
        }
    }
    broken
}

/// The path without `.` and `..`.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => drop(plain.pop()),
            part => plain.push(part),
        }
    }
    plain
}

/// The lines of a page which are not in a block of code.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut in_code = false;
    text.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        in_code ^= fence;
        !in_code && !fence
    })
}

/// Every link of a page that leads to a file of ours.
fn links(text: &str) -> Vec<&str> {
    let mut links = Vec::new();
    for line in prose(text) {
        let mut rest = line;
        while let Some((_, after)) = rest.split_once("](") {
            let Some((link, left)) = after.split_once(')') else { break };
            rest = left;
            if !link.contains("://") && !link.starts_with("mailto:") {
                links.push(link);
            }
        }
    }
    links
}

/// What one can jump to: each heading in lower case, with hyphens for spaces and without other signs.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = prose(text).filter_map(|line| line.strip_prefix('#'));
    let name = |heading: &str| {
        let heading = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    headings.map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_that_is_named_is_told_from_other_words() {
        let text = "kept by `a_call_runs_at_most_once`, see `max_bytes`, `cargo xtask docs`,\n```\n`not_in_a_block`\n```\n`Not_a_test_name`";
        assert_eq!(named_tests(text).collect::<Vec<_>>(), ["a_call_runs_at_most_once"]);
    }

    #[test]
    fn a_link_that_leads_nowhere_is_found_and_others_are_not() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let page = "# One thing, two\n[a](#one-thing-two) [b](Cargo.toml) [c](https://example.org/x)\n\
            ```\n[code](nowhere)\n```\n[d](gone.md) [e](#gone) and [f](../xtask/Cargo.toml)\n";
        let pages = BTreeMap::from([(root.join("page.md"), page.to_owned())]);
        assert_eq!(
            broken_links(root, &pages),
            ["page.md: `gone.md` leads nowhere", "page.md: `#gone` leads nowhere"]
        );
    }
}
