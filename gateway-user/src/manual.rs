//! Manual pages of the two commands, made from what `--help` says.

use std::fs::File;
use std::io;
use std::path::Path;

use clap::Command;
use clap_mangen::Man;

/// Writes `<command>.8` into `dir`, which is made, and `<command>-<subcommand>.8` for all that
/// `--help` shows.
///
/// # Errors
/// The folder or a file cannot be written.
pub fn write(mut command: Command, dir: &Path) -> io::Result<()> {
    std::fs::create_dir_all(dir)?;
    command.build();
    page(&command, dir)
}

fn page(command: &Command, dir: &Path) -> io::Result<()> {
    let name = command
        .get_display_name()
        .unwrap_or_else(|| command.get_name());
    let mut file = File::create(dir.join(format!("{name}.8")))?;
    let this = command.clone().disable_help_subcommand(true);
    Man::new(this).section("8").render(&mut file)?;
    let shown = |sub: &&Command| !sub.is_hide_set() && sub.get_name() != "help";
    command
        .get_subcommands()
        .filter(shown)
        .try_for_each(|sub| page(sub, dir))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_that_help_shows_has_its_page() {
        let dir = tempfile::tempdir().unwrap();
        let command = Command::new("tool")
            .about("Does it.")
            .subcommand(Command::new("part").subcommand(Command::new("detail")))
            .subcommand(Command::new("secret").hide(true));
        write(command, dir.path()).unwrap();
        let mut pages: Vec<String> = std::fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        pages.sort();
        assert_eq!(pages, ["tool-part-detail.8", "tool-part.8", "tool.8"]);
        let text = std::fs::read_to_string(dir.path().join("tool.8")).unwrap();
        assert!(
            text.contains("Does it.") && text.contains("tool\\-part(8)"),
            "{text}"
        );
    }
}
