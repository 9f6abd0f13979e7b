//! Patterns of files, as Python's ``glob`` has them: ``**`` stands for any directories, and names that begin with a dot are
//! found by patterns that do.

use std::fs;
use std::path::Path;

pub fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?', '['])
}

/// The paths that a pattern finds, relative to ``root``.
pub fn glob(root: &Path, pattern: &str) -> Vec<String> {
    let parts: Vec<&str> = pattern.split('/').filter(|it| !it.is_empty()).collect();
    let mut found = Vec::new();
    walk(root, "", &parts, &mut found);
    found
}

fn walk(root: &Path, at: &str, parts: &[&str], found: &mut Vec<String>) {
    let Some((part, rest)) = parts.split_first() else {
        found.push(at.to_string());
        return;
    };
    if *part == "**" {
        walk(root, at, rest, found);
        for name in names(root, at).iter().filter(|name| !name.starts_with('.')) {
            let below = join(at, name);
            if root.join(&below).is_dir() {
                walk(root, &below, parts, found);
            } else if rest.is_empty() {
                found.push(below);
            }
        }
    } else if is_pattern(part) {
        let pattern: Vec<char> = part.chars().collect();
        for name in names(root, at).iter().filter(|name| !name.starts_with('.') || part.starts_with('.')) {
            if matches(&pattern, &name.chars().collect::<Vec<_>>()) {
                go_on(root, join(at, name), rest, found);
            }
        }
    } else {
        go_on(root, join(at, part), rest, found);
    }
}

/// With what is there: only a directory has something below it.
fn go_on(root: &Path, at: String, rest: &[&str], found: &mut Vec<String>) {
    let here = root.join(&at);
    if if rest.is_empty() { here.symlink_metadata().is_ok() } else { here.is_dir() } {
        walk(root, &at, rest, found);
    }
}

fn names(root: &Path, at: &str) -> Vec<String> {
    let entries = fs::read_dir(root.join(at)).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}

fn join(at: &str, name: &str) -> String {
    if at.is_empty() { name.to_string() } else { format!("{at}/{name}") }
}

/// Whether a name is one of a pattern's, of ``*``, ``?`` and ``[…]``.
fn matches(pattern: &[char], name: &[char]) -> bool {
    match pattern.first() {
        None => name.is_empty(),
        Some('*') => (0..=name.len()).any(|from| matches(&pattern[1..], &name[from..])),
        Some('[') => match set(pattern) {
            Some((set, rest)) => name.first().is_some_and(|it| is_in(set, *it)) && matches(rest, &name[1..]),
            None => name.first() == Some(&'[') && matches(&pattern[1..], &name[1..]),
        },
        Some('?') => !name.is_empty() && matches(&pattern[1..], &name[1..]),
        Some(it) => name.first() == Some(it) && matches(&pattern[1..], &name[1..]),
    }
}

/// What is between brackets, of which the first may be a closing one, and what follows; ``None``: nothing closes them.
fn set(pattern: &[char]) -> Option<(&[char], &[char])> {
    let first = if pattern.get(1) == Some(&'!') { 3 } else { 2 };
    let end = first + pattern.get(first..)?.iter().position(|it| *it == ']')?;
    Some((&pattern[1..end], &pattern[end + 1..]))
}

fn is_in(set: &[char], one: char) -> bool {
    let (others, mut set) = match set {
        ['!', set @ ..] => (true, set),
        set => (false, set),
    };
    loop {
        let (first, last, rest) = match set {
            [] => return others,
            [first, '-', last, rest @ ..] => (first, last, rest),
            [first, rest @ ..] => (first, first, rest),
        };
        if (*first..=*last).contains(&one) {
            return !others;
        }
        set = rest;
    }
}
