//! `stagely`: the user's command line.

use std::process::ExitCode;

use clap::Parser;
use stagely_cli::{Cli, Exit};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Clap writes help and versions to standard output, mistakes to standard error.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage.into() } else { ExitCode::SUCCESS };
        }
    };
    stagely_cli::run(cli, &mut std::io::stdout().lock(), &mut std::io::stderr().lock()).await.into()
}
