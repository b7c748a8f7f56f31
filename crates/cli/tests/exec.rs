//! Commands in cells, as somebody types them.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on may stop")]

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::process::{Command, Output};

/// A folder to work in that is gone after the test.
struct Folder(std::path::PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path =
            std::path::Path::new("/var/tmp").join(format!("toolgate-exec-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn exec(&self, options: &[&str], script: &str) -> (String, String, Option<i32>) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_toolgate"));
        command.arg("exec").args(options).args(["--", "bash", "-c", script]);
        command.env_clear().env("PATH", "/usr/bin:/bin").current_dir(&self.0);
        let Output { status, stdout, stderr } = command.output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (text(stdout), text(stderr), status.code())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _left = fs::remove_dir_all(&self.0);
    }
}

/// A server on this machine that answers once.
fn server(answer: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _request = stream.read(&mut [0; 64]).unwrap();
        stream.write_all(answer.as_bytes()).unwrap();
    });
    port
}

/// Asks a server for something, in a shell.
fn ask(host: &str, port: u16) -> String {
    format!("exec 3<>/dev/tcp/{host}/{port} && echo please >&3 && cat <&3")
}

/// The program itself goes without them.
#[test]
fn a_command_has_huge_pages() {
    let folder = Folder::new("pages");
    let (status, why, code) = folder.exec(&[], "cat /proc/self/status");
    assert_eq!((why, code), (String::new(), Some(0)));
    assert!(status.lines().any(|line| line == "THP_enabled:\t1"), "{status}");
}

#[test]
fn a_command_reaches_what_is_named() {
    let folder = Folder::new("net");
    let port = server("you are welcome");
    let net = format!("files.localhost:{port},private");
    let told = folder.exec(&["--net", &net], &ask("files.localhost", port));
    assert_eq!(told, ("you are welcome".to_owned(), String::new(), Some(0)));
}

#[test]
fn what_is_not_named_is_not_reached_and_told() {
    let folder = Folder::new("no-net");
    let port = server("you should not be here");
    let private = format!("files.localhost:{port},private");
    let public = format!("files.localhost:{port}");
    for (net, host, why) in [
        (&private, "other.localhost", "not allowed: other.localhost (no rule has this name)\n"),
        (
            &private,
            "192.0.2.1",
            &*format!("not allowed: 192.0.2.1:{port} (only names can be connected to)\n"),
        ),
        (
            &public,
            "files.localhost",
            &format!(
                "not allowed: files.localhost:{port} (the name leads to an address that is not allowed)\n"
            ),
        ),
    ] {
        let (out, err, code) = folder.exec(&["--net", net], &ask(host, port));
        assert_eq!((out.as_str(), code), ("", Some(1)), "{host}: {err}");
        assert!(err.contains(why), "{host}: {err}");
    }
    let (out, err, _) = folder.exec(&[], &ask("127.0.0.1", port));
    assert!(out.is_empty() && err.contains("Connection refused"), "{err}");
}

#[test]
fn a_rule_that_is_none_is_a_mistake_of_whoever_typed_it() {
    let folder = Folder::new("rules");
    for (net, why) in [
        ("10.0.0.1:80", "it is an address, or could be read as one; rules are for names"),
        ("example.com", "`example.com` has no port; write it as `NAME:PORT`"),
        ("*.com:443", "`*.com` is too wide"),
        ("localhost:80", "`localhost` is the cell itself"),
    ] {
        let (_, err, code) = folder.exec(&["--net", net], "true");
        assert!(err.contains(why) && code == Some(1), "{net}: {code:?} {err}");
    }
}
