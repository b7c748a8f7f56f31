//! What `--help`, the completions and the manual pages say.

use std::fs;

use crate::home::Home;

/// The commands below one, as its help lists them.
pub(crate) fn below(help: &str) -> Vec<String> {
    let listed = help.split("Commands:\n").nth(1).unwrap_or_default();
    let lines = listed.lines().take_while(|line| !line.is_empty());
    // What goes on from the line before is indented deeper.
    lines
        .filter(|line| !line.starts_with("   "))
        .map(|line| line.split_whitespace().next().unwrap().to_owned())
        .collect()
}

/// Every command with its help.
fn all(home: &Home) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut left = vec![Vec::new()];
    while let Some(words) = left.pop() {
        let arguments: Vec<&str> = words.iter().map(String::as_str).chain(["--help"]).collect();
        let help = home.done(&arguments);
        for next in below(&help) {
            left.push([words.clone(), vec![next]].concat());
        }
        found.push((words.join(" "), help));
    }
    found.sort();
    found
}

#[test]
fn each_help_ends_with_examples_and_is_as_it_was_read_last() {
    let home = Home::new("help");
    let mut shown = String::new();
    let commands = all(&home);
    assert!(commands.len() > 35, "{} commands", commands.len());
    for (command, help) in commands {
        let examples = help.split("Examples:\n").nth(1);
        assert!(examples.is_some_and(|examples| examples.starts_with("  ")), "`{command}` has no examples");
        assert!(help.lines().all(|line| line.chars().count() <= 120), "`{command}` has long lines:\n{help}");
        shown.push_str(&format!("$ toolgate {command} --help\n{help}\n"));
    }
    insta::with_settings!({ prepend_module_to_snapshot => false, omit_expression => true }, {
        insta::assert_snapshot!("help", shown);
    });
}

/// The words as a shell would read them; no example has anything harder than quotes.
fn shell_words(line: &str) -> Vec<String> {
    let (mut words, mut quote) = (vec![String::new()], None);
    for c in line.chars() {
        match (c, quote) {
            (' ', None) => words.push(String::new()),
            ('"' | '\'', None) => quote = Some(c),
            (_, Some(open)) if open == c => quote = None,
            _ => words.last_mut().unwrap().push(c),
        }
    }
    words
}

#[test]
fn each_example_can_be_read() {
    let home = Home::new("examples");
    for (command, help) in all(&home) {
        for example in help.split("Examples:\n").nth(1).unwrap().lines().take_while(|line| !line.is_empty()) {
            let Some(words) = example.trim().strip_prefix("toolgate ") else { continue };
            // Only whether the words are understood: the last one asks for help instead of doing it.
            let words = words.split("  ").next().unwrap().split(" > ").next().unwrap();
            let arguments = shell_words(words);
            let mut arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            // What comes after `--` belongs to another program.
            let own = arguments.iter().position(|word| *word == "--").unwrap_or(arguments.len());
            arguments.truncate(own);
            arguments.push("--help");
            let output = home.run(&arguments);
            assert!(output.status.success(), "in the help of `{command}`: {example}");
        }
    }
}

#[test]
fn completions_and_manual_pages_know_every_command() {
    let home = Home::new("man");
    for (shell, wanted) in [
        ("bash", "complete -F _toolgate"),
        ("elvish", "edit:completion:arg-completer"),
        ("fish", "complete -c toolgate"),
        ("powershell", "Register-ArgumentCompleter"),
        ("zsh", "#compdef toolgate"),
    ] {
        let script = home.done(&["completions", shell]);
        assert!(script.contains(wanted), "{shell}: {script}");
        for (command, _) in all(&home) {
            let last = command.split(' ').next_back().unwrap();
            assert!(script.contains(last), "{shell} does not know `{command}`");
        }
    }
    home.done(&["man", "pages"]);
    let folder = home.path().join("work/pages");
    for (command, _) in all(&home) {
        let name = if command.is_empty() {
            "toolgate".to_owned()
        } else {
            format!("toolgate-{}", command.replace(' ', "-"))
        };
        let page = fs::read_to_string(folder.join(format!("{name}.1"))).unwrap();
        assert!(page.contains(".TH") && page.contains("Examples:"), "{name}: {page}");
    }
}
