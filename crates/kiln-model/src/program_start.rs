//! What the kernel takes along when a program starts: its arguments and its variables.
//!
//! Source: execve(2), "Limits on size of arguments and environment".

/// How large the stack of an instance's programs may become, in bytes; what a machine that nobody has touched allows.
pub const STACK_LIMIT: u64 = 8 << 20;

/// The longest argument, and the longest `NAME=value`, in bytes: MAX_ARG_STRLEN without the NUL at its end.
const LONGEST: usize = (128 << 10) - 1;
/// A quarter of the stack is for all of them, each with its NUL and a pointer to it.
const MOST: usize = STACK_LIMIT as usize / 4;

/// More than a program can be started with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TooLong {
    /// One of its arguments.
    #[error("argument {position} has {length} bytes, and one can have {LONGEST}")]
    Argument {
        /// The program itself is 0.
        position: usize,
        /// In bytes.
        length: usize,
    },
    /// One of its variables.
    #[error("variable `{name}` has {length} bytes with its name, and one can have {LONGEST}")]
    Variable {
        /// Its name.
        name: String,
        /// Of `NAME=value`, in bytes.
        length: usize,
    },
    /// Together.
    #[error("its arguments and variables have {length} bytes together, and can have {MOST}")]
    Together {
        /// In bytes, with what the kernel adds to each.
        length: usize,
    },
}

/// Whether a program can be started with these arguments (itself first) and variables, of which only the length of the
/// value in bytes matters.
///
/// # Errors
/// What is too long.
pub fn can_start<'a>(
    argv: &[String],
    variables: impl IntoIterator<Item = (&'a str, usize)>,
) -> Result<(), TooLong> {
    let mut together = 0;
    let mut add = |length: usize| together += length + 1 + size_of::<usize>();
    for (position, argument) in argv.iter().enumerate() {
        let length = argument.len();
        if length > LONGEST {
            return Err(TooLong::Argument { position, length });
        }
        add(length);
    }
    for (name, value) in variables {
        let length = name.len() + 1 + value;
        if length > LONGEST {
            return Err(TooLong::Variable { name: name.to_owned(), length });
        }
        add(length);
    }
    if together > MOST { Err(TooLong::Together { length: together }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// As the kernel has it, under this stack.
    fn starts(argv: &[String], variables: &[(String, usize)]) -> bool {
        let mut command = Command::new("/usr/bin/prlimit");
        command.arg(format!("--stack={STACK_LIMIT}")).args(["/bin/true"]).args(&argv[1..]).env_clear();
        command.envs(variables.iter().map(|(name, length)| (name, "x".repeat(*length))));
        command.output().is_ok_and(|output| output.status.success())
    }

    #[test]
    fn what_the_kernel_takes_is_taken_and_no_more() {
        let argument = |length: usize| vec!["/bin/true".to_owned(), "x".repeat(length)];
        let variable = |length: usize| vec![("NAME".to_owned(), length)];
        let many = |n: usize| (0..n).map(|i| (format!("N{i:02}"), 100_000)).collect::<Vec<_>>();
        for (argv, variables, fits) in [
            (argument(LONGEST), vec![], true),
            (argument(LONGEST + 1), vec![], false),
            (argument(1), variable(LONGEST - 5), true),
            (argument(1), variable(LONGEST - 4), false),
            (argument(1), many(20), true),
            (argument(1), many(21), false),
        ] {
            let told = can_start(&argv, variables.iter().map(|(name, length)| (name.as_str(), *length)));
            assert_eq!(told.is_ok(), fits, "{told:?}");
            assert_eq!(starts(&argv, &variables), fits, "the kernel says otherwise; {told:?}");
        }
    }

    #[test]
    fn what_is_too_long_is_named() {
        let told = can_start(&[], [("KEY", 131_068)]).unwrap_err().to_string();
        assert_eq!(told, "variable `KEY` has 131072 bytes with its name, and one can have 131071");
    }
}
