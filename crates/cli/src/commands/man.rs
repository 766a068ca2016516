//! `omniburn man`: manual pages of the program and of its verbs.

use std::fs;

use clap::{Command, CommandFactory};
use clap_mangen::Man;

use super::place::shown;
use crate::args::{Cli, ManArgs};
use crate::failure::{DONE, Failure, Outcome, SOME_FAILED};
use crate::output::write_stdout;

/// Prints one page, or writes all of them.
///
/// # Errors
/// A usage failure for a verb that is not there; a folder that cannot be written.
pub fn run(args: &ManArgs) -> Outcome {
    let pages = pages();
    if let Some(folder) = &args.all {
        fs::create_dir_all(folder).map_err(|e| Failure::usage(format!("{}: {e}", shown(folder))))?;
        for (name, page) in pages {
            let path = folder.join(format!("{name}.1"));
            let unwritten = |e| Failure::with_code(SOME_FAILED, anyhow::anyhow!("{}: {e}", shown(&path)));
            fs::write(&path, page).map_err(unwritten)?;
        }
        return Ok(DONE);
    }
    let wanted = std::iter::once("omniburn").chain(args.verb.iter().map(String::as_str)).collect::<Vec<_>>().join("-");
    let page = pages.into_iter().find(|(name, _)| *name == wanted);
    let (_, page) = page.ok_or_else(|| Failure::usage(format!("no verb is called `{}`", args.verb.join(" "))))?;
    write_stdout(&page)?;
    Ok(DONE)
}

/// Every page by its name, such as `omniburn-index-status`.
fn pages() -> Vec<(String, Vec<u8>)> {
    let mut program = Cli::command().disable_help_subcommand(true);
    // Verbs get the names under which they are typed.
    program.build();
    let mut pages = Vec::new();
    add(program, &mut pages);
    pages
}

fn add(command: Command, pages: &mut Vec<(String, Vec<u8>)>) {
    let below: Vec<Command> = command.get_subcommands().filter(|verb| !verb.is_hide_set()).cloned().collect();
    let name = command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned();
    let mut page = Vec::new();
    Man::new(command).section("1").render(&mut page).expect("a vector takes whatever is written");
    pages.push((name, page));
    below.into_iter().for_each(|verb| add(verb, pages));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verb_has_a_page_with_its_examples() {
        let pages = pages();
        let page = |name: &str| {
            let found = pages.iter().find(|(there, _)| there == name);
            String::from_utf8(found.unwrap_or_else(|| panic!("{name} has no page")).1.clone()).unwrap()
        };
        for verb in Cli::command().get_subcommands().filter(|verb| !verb.is_hide_set()) {
            let page = page(&format!("omniburn-{}", verb.get_name()));
            assert!(page.contains(".TH") && page.contains("Examples:"), "{}", verb.get_name());
        }
        assert!(page("omniburn-index-status").contains("omniburn index status"));
        assert!(page("omniburn-search").contains("omniburn search"));
    }
}
