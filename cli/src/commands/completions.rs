// SPDX-License-Identifier: MIT OR Apache-2.0

//! `rsshm completions`: scripts with which a shell completes options, commands and the names of channels.

use clap::{Args, Command, CommandFactory, ValueEnum};
use clap_complete::Shell;

use crate::{args::Arguments, failure::Failure, output::Output};

/// The command that prints the names of all channels.
const NAMES: &str = "rsshm list --quiet 2>/dev/null";

/// A shell with completions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Script {
    /// bash.
    Bash,
    /// zsh.
    Zsh,
    /// fish.
    Fish,
}

/// Prints a script with which a shell completes commands, options and the names of channels.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  rsshm completions bash > ~/.local/share/bash-completion/completions/rsshm
  rsshm completions zsh > ~/.zfunc/_rsshm            ~/.zfunc has to be in $fpath
  rsshm completions fish > ~/.config/fish/completions/rsshm.fish")]
pub(crate) struct Completions {
    /// The shell.
    #[arg(value_enum, value_name = "SHELL")]
    shell: Script,
}

impl Completions {
    pub(crate) fn run(&self, output: &mut Output) -> Result<(), Failure> {
        let mut program = Arguments::command();
        let commands = commands_with_channels(&program);
        let options = options_with_values(&program);
        let shell = match self.shell {
            Script::Bash => Shell::Bash,
            Script::Zsh => Shell::Zsh,
            Script::Fish => Shell::Fish,
        };
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut program, "rsshm", &mut script);
        let script = String::from_utf8_lossy(&script).into_owned();
        let script = match self.shell {
            Script::Bash => script + &bash(&commands, &options),
            Script::Zsh => zsh(&script),
            Script::Fish => script + &fish(&commands),
        };
        output.bytes(script.as_bytes())
    }
}

/// The names and aliases of the commands that take channels.
fn commands_with_channels(program: &Command) -> Vec<String> {
    let takes_channels = |command: &&Command| {
        let mut positionals = command.get_positionals();
        positionals.any(|argument| {
            argument
                .get_value_names()
                .is_some_and(|names| names.iter().any(|name| name == "CHANNEL"))
        })
    };
    program
        .get_subcommands()
        .filter(takes_channels)
        .flat_map(|command| std::iter::once(command.get_name()).chain(command.get_all_aliases()))
        .map(str::to_owned)
        .collect()
}

/// The options that take a value, of all commands.
fn options_with_values(program: &Command) -> Vec<String> {
    let arguments = program.get_subcommands().chain([program]).flat_map(Command::get_opts);
    let names = arguments.flat_map(|option| {
        let long = option.get_long().map(|long| format!("--{long}"));
        let short = option.get_short().map(|short| format!("-{short}"));
        long.into_iter().chain(short)
    });
    let mut names: Vec<String> = names.collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// Adds the names of channels to what the generated function completes, except for the value of an option.
fn bash(commands: &[String], options: &[String]) -> String {
    format!(
        r#"
_rsshm_channels() {{
    _rsshm "$@"
    local word="${{COMP_WORDS[COMP_CWORD]}}"
    [[ $word == -* ]] && return
    case "${{COMP_WORDS[COMP_CWORD - 1]}}" in
        {}) return ;;
    esac
    case "${{COMP_WORDS[1]}}" in
        {})
            [[ $COMP_CWORD -gt 1 ]] || return
            local IFS=$'\n'
            COMPREPLY+=($(compgen -W "$({NAMES})" -- "$word"))
            ;;
    esac
}}

complete -F _rsshm_channels -o bashdefault -o default rsshm
"#,
        options.join("|"),
        commands.join("|")
    )
}

/// Completes channels where the generated function completes files.
fn zsh(script: &str) -> String {
    let lines = script.lines().map(|line| {
        let is_channel =
            line.contains("channel -- ") || line.contains("::channels -- ") || line.contains(":channels -- ");
        if is_channel {
            line.replace(":_default'", ":_rsshm_channels'")
        } else {
            line.to_owned()
        }
    });
    let function = format!(
        "_rsshm_channels() {{\n    local -a channels\n    channels=(${{(f)\"$({NAMES})\"}})\n    compadd -a channels\n}}\n"
    );
    let mut text = String::new();
    for line in lines {
        // The functions come before the last part, which calls the completion.
        if line.starts_with("if [ \"$funcstack[1]\"") {
            text += &function;
            text.push('\n');
        }
        text += &line;
        text.push('\n');
    }
    text
}

/// Adds the names of channels to the generated rules.
fn fish(commands: &[String]) -> String {
    format!(
        "complete -c rsshm -n \"__fish_seen_subcommand_from {}\" -f -a \"({NAMES})\" -d channel\n",
        commands.join(" ")
    )
}
