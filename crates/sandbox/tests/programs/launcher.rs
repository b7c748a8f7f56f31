//! A program that can be nothing but the launcher of cells: for tests of the library, which have no `main` of their own.

fn main() -> std::process::ExitCode {
    toolgate_sandbox::cell::launcher().map_or(std::process::ExitCode::FAILURE, Into::into)
}
