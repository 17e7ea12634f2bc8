//! The manual is clean, and shells take their completions and complete with them.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::run;

/// bash as it calls a completion, without the package that loads it on demand.
const BASH: &str = r#"
bash -n "$1"
source "$1"
ask() {
    COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMPREPLY=()
    local function=$(complete -p observer | sed 's/.*-F \([^ ]*\).*/\1/')
    "$function" observer "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
    echo "${COMPREPLY[*]}"
}
ask observer sna
ask observer attach --form
ask observer snapshot --format pp
"#;

const FISH: &str = r"
fish --no-execute $argv[1]; or exit 1
source $argv[1]
complete -C 'observer sna' | string split -f 1 \t
complete -C 'observer attach --form' | string split -f 1 \t
complete -C 'observer snapshot --format pp' | string split -f 1 \t
";

/// zsh completes on a terminal only; it takes the file as it would from its directory and says what it registered.
const ZSH: &str = r#"
zsh -n "$1"
fpath=("${1:h}" $fpath)
autoload -U compinit
compinit -u -D
[[ ${_comps[observer]} == _observer ]]
autoload +X _observer
print -r -- ${functions[_observer]} | grep -o snapshot | head -n 1
"#;

pub fn check(generated: &Path) -> Result<()> {
    manual(&generated.join("man"))?;
    let completions = generated.join("completions");
    let asked = "snapshot\n--format\npprof";
    let shells = [
        ("bash", &["--norc", "-ec", BASH, "bash"][..], "observer.bash", asked),
        ("fish", &["--no-config", "--command", FISH][..], "observer.fish", asked),
        ("zsh", &["-fec", ZSH, "zsh"][..], "_observer", "snapshot"),
    ];
    for (shell, arguments, name, expected) in shells {
        let output = Command::new(shell).args(arguments).arg(completions.join(name)).output()?;
        let out = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() || !output.stderr.is_empty() || out.trim() != expected {
            let err = String::from_utf8_lossy(&output.stderr);
            bail!("{shell} with {name}: {}\n{out}{err}(expected: {expected:?})", output.status);
        }
    }
    Ok(())
}

/// A page for each command, none of which man has anything to say against.
fn manual(directory: &Path) -> Result<()> {
    let mut names: Vec<_> = fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    names.sort();
    if names.len() < 6 {
        bail!("{} pages in {}: some are missing", names.len(), directory.display());
    }
    for page in &names {
        let mut man = Command::new("man");
        man.args(["--warnings", "--local-file", "--encoding=UTF-8"]).arg(page);
        let output = man.env("MANROFFSEQ", "").env("MANWIDTH", "80").env("LC_ALL", "C.UTF-8").output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() || !output.stderr.is_empty() || !text.contains("EXIT STATUS") {
            bail!("{}: {}\n{}", run::shown(&man), output.status, String::from_utf8_lossy(&output.stderr));
        }
    }
    Ok(())
}
