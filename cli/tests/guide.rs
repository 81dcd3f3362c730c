//! The guide to a fit as a newcomer follows it: its commands run, and print what it shows.

#![expect(clippy::unwrap_used, reason = "a helper of a test may panic")]

mod support;

use support::{gradus, shown};

const GUIDE: &str = include_str!("../../docs/guides/read-a-fit.md");
const ROWS: &str = include_str!("../../docs/guides/read-a-fit.csv");

/// What is indented, block by block.
fn blocks() -> Vec<Vec<&'static str>> {
    let lines: Vec<Option<&str>> = GUIDE.lines().map(|line| line.strip_prefix("    ")).collect();
    let blocks = lines.split(Option::is_none);
    let blocks = blocks.map(|block| block.iter().filter_map(|line| *line).collect::<Vec<&str>>());
    blocks.filter(|block| !block.is_empty()).collect()
}

#[test]
fn the_guide_shows_what_its_commands_print() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("read-a-fit.csv"), ROWS).unwrap();
    let mut printed = String::new();
    let (mut n_commands, mut n_lines) = (0, 0);
    for block in blocks() {
        if !block[0].starts_with("gradus ") {
            for line in block.iter().map(|line| line.trim_end()).filter(|line| !line.is_empty()) {
                let is_printed = printed.lines().any(|one| one.trim_end() == line);
                assert!(is_printed, "`{line}` is not printed:\n{printed}");
                n_lines += 1;
            }
            continue;
        }
        let text = block.join("\n").replace("\\\n", " ");
        // Of a study there is none here.
        for command in text.lines().filter(|line| !line.starts_with("gradus fit ladder")) {
            let output = gradus(&folder, command.strip_prefix("gradus ").unwrap());
            printed = shown(&output);
            assert!(output.status.success(), "`{command}`: {printed}");
            n_commands += 1;
        }
    }
    assert!(n_commands >= 9 && n_lines >= 20, "{n_commands} commands, {n_lines} lines");
}
