//! What a process was started with, kept from the moment of its exec.
use super::facts;

/// Command line and environment at exec, before setproctitle overwrites both.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Program {
    /// The command line.
    pub argv: Vec<String>,
    /// The variables of the environment that facts keep.
    pub environ: Vec<(String, String)>,
}

impl Program {
    /// From the two blocks that the kernel has in memory: words and variables, each ended by NUL.
    pub fn new(argv: &[u8], environ: &[u8]) -> Program {
        let argv = argv.strip_suffix(b"\0").unwrap_or(argv);
        let words = argv.split(|byte| *byte == 0).filter(|_| !argv.is_empty());
        Program {
            argv: words.map(|word| String::from_utf8_lossy(word).into_owned()).collect(),
            environ: facts::pick(environ),
        }
    }

    /// Whether its command line or environment has gunicorn's name somewhere.
    pub fn speaks_of_gunicorn(&self) -> bool {
        let variables = self.environ.iter().map(|(name, _)| name);
        let mut words = self.argv.iter().chain(variables);
        words.any(|word| word.to_ascii_lowercase().contains("gunicorn"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_split_at_nul() {
        let program = Program::new(b"gunicorn\0-n\0\0app:app\0", b"SECRET=x\0SW_AGENT_NAME=shop\0");
        assert_eq!(program.argv, ["gunicorn", "-n", "", "app:app"]);
        assert_eq!(program.environ, [("SW_AGENT_NAME".to_owned(), "shop".to_owned())]);
        assert_eq!(Program::new(b"", b""), Program::default());
        assert!(program.speaks_of_gunicorn() && !Program::default().speaks_of_gunicorn());
        assert!(Program::new(b"python\0serve.py\0", b"GUNICORN_CMD_ARGS=-w 2\0").speaks_of_gunicorn());
    }
}
