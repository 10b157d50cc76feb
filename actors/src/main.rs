//! `mainstay`: run a supervision tree of AI agents from one file, check it, look at it.

use std::process::ExitCode;

mod cli;

fn main() -> ExitCode {
    cli::main()
}
