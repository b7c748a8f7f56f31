//! A home for one test, the gate that runs in it, and a client of that gate.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

/// How long something that has to come is waited for before the test is given up.
const PATIENCE: Duration = Duration::from_secs(120);

/// An empty home that is gone after the test.
pub(crate) struct Home(PathBuf);

impl Home {
    pub(crate) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("toolgate-program-{name}-{}", std::process::id()));
        let _old = fs::remove_dir_all(&path);
        fs::create_dir_all(path.join("work")).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_toolgate"));
        command
            .args(arguments)
            .env_clear()
            .env("HOME", &self.0)
            .env("PATH", "/usr/bin:/bin")
            .env("USER", "tester")
            .current_dir(self.0.join("work"))
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs a command that gets this on its standard input.
    pub(crate) fn fed(&self, arguments: &[&str], input: &[u8]) -> Output {
        let mut command = self.command(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = command.spawn().unwrap();
        // One that does not read its input hangs up.
        let _unread = process.stdin.take().unwrap().write_all(input);
        process.wait_with_output().unwrap()
    }

    /// Standard output of a command that has to succeed.
    pub(crate) fn done(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Standard output, standard error and exit code, with the home's path taken out.
    pub(crate) fn shown(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let text = |bytes: &[u8]| self.plain(&String::from_utf8_lossy(bytes));
        format!("{}{}exit {}", text(&output.stdout), text(&output.stderr), output.status.code().unwrap())
    }

    /// A text without what differs from test to test.
    pub(crate) fn plain(&self, text: &str) -> String {
        text.replace(&self.0.display().to_string(), "~")
    }

    pub(crate) fn write(&self, path: &str, text: &str) -> PathBuf {
        self.write_with(path, text, 0o600)
    }

    pub(crate) fn write_with(&self, path: &str, text: &str, mode: u32) -> PathBuf {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        // In one step, so that a gate that looks in between sees the old one or the new one.
        let draft = path.with_extension("draft");
        fs::write(&draft, text).unwrap();
        fs::set_permissions(&draft, fs::Permissions::from_mode(mode)).unwrap();
        fs::rename(&draft, &path).unwrap();
        path
    }

    pub(crate) fn config(&self, text: &str) -> PathBuf {
        self.write(".config/toolgate/toolgate.toml", text)
    }

    pub(crate) fn policy(&self, text: &str) -> PathBuf {
        self.write(".config/toolgate/policies/rules.cedar", text)
    }

    /// `[servers.NAME]` with the demo's tools: a server that is there wherever the program is.
    pub(crate) fn office(name: &str) -> String {
        format!("[servers.{name}]\ncommand = [{:?}, \"demo-server\"]\n", env!("CARGO_BIN_EXE_toolgate"))
    }

    /// Starts `toolgate up` on a free port, and waits until it is up.
    pub(crate) fn up(&self, arguments: &[&str]) -> Gate {
        let all = [&["up", "--listen", "127.0.0.1:0"], arguments].concat();
        Self::begun(self.command(&all))
    }

    /// The same, as on a host that gives no namespaces.
    pub(crate) fn up_without_namespaces(&self) -> Gate {
        const GIVE_NONE: &str = "echo 0 > /proc/sys/user/max_user_namespaces
            exec setpriv --ambient-caps=-all --inh-caps=-all -- \"$@\"";
        let gate = self.command(&["up", "--listen", "127.0.0.1:0"]);
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-user=1000", "--map-group=1000", "--keep-caps", "--"]);
        command.args(["sh", "-e", "-c", GIVE_NONE, "sh"]).arg(gate.get_program()).args(gate.get_args());
        command.env_clear().envs(gate.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.current_dir(self.0.join("work")).stdin(Stdio::null());
        Self::begun(command)
    }

    fn begun(mut command: Command) -> Gate {
        let mut process = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let out = Printed::of(process.stdout.take().unwrap());
        let line = out.until("http://");
        Self::gate(process, out, &line)
    }

    /// A gate that was started and has said this on its first line.
    pub(crate) fn gate(mut process: Child, out: Printed, line: &str) -> Gate {
        let err = Printed::of(process.stderr.take().unwrap());
        let host = line.split("http://").nth(1).unwrap().split("/mcp").next().unwrap().to_owned();
        Gate { process, out, err, host, token: None, session: None }
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let _gone = fs::remove_dir_all(&self.0);
    }
}

/// What a process prints, as it comes.
pub(crate) struct Printed(Arc<(Mutex<(String, bool)>, Condvar)>);

impl Printed {
    pub(crate) fn of(pipe: impl std::io::Read + Send + 'static) -> Self {
        let shared = Arc::<(Mutex<(String, bool)>, Condvar)>::default();
        let to = Arc::clone(&shared);
        std::thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                let mut text = to.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                text.0.push_str(&line);
                text.0.push('\n');
                to.1.notify_all();
            }
            to.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).1 = true;
            to.1.notify_all();
        });
        Self(shared)
    }

    /// Waits until a line has this, and gives it.
    pub(crate) fn until(&self, wanted: &str) -> String {
        let mut text = self.0.0.lock().unwrap();
        loop {
            if let Some(line) = text.0.lines().find(|line| line.contains(wanted)) {
                return line.to_owned();
            }
            assert!(!text.1, "it ended without `{wanted}`: {}", text.0);
            let (again, timed) = self.0.1.wait_timeout(text, PATIENCE).unwrap();
            assert!(!timed.timed_out(), "it did not say `{wanted}`: {}", again.0);
            text = again;
        }
    }

    /// All of it, once it has ended.
    pub(crate) fn to_end(&self) -> String {
        let mut text = self.0.0.lock().unwrap();
        while !text.1 {
            text = self.0.1.wait(text).unwrap();
        }
        text.0.clone()
    }

    /// All of it until now.
    pub(crate) fn all(&self) -> String {
        self.0.0.lock().unwrap().0.clone()
    }
}

/// A gate that runs until the test is over, and a client of it.
pub(crate) struct Gate {
    pub(crate) process: Child,
    pub(crate) out: Printed,
    pub(crate) err: Printed,
    pub(crate) host: String,
    pub(crate) token: Option<String>,
    session: Option<String>,
}

/// An answer: status and body.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    /// The JSON-RPC message, alone or as the last event of a stream.
    pub(crate) fn message(&self) -> Value {
        let json = self.body.lines().rev().find_map(|line| {
            let line = line.strip_prefix("data: ").unwrap_or(line);
            serde_json::from_str::<Value>(line).ok().filter(Value::is_object)
        });
        json.unwrap_or_else(|| panic!("no message in {:?}", self.body))
    }
}

impl Gate {
    pub(crate) fn post(&self, body: &Value) -> Answer {
        read(self.send(body))
    }

    pub(crate) fn send(&self, body: &Value) -> TcpStream {
        let mut stream = TcpStream::connect(&self.host).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let body = body.to_string();
        let line = |name: &str, value: &Option<String>| {
            value.as_ref().map(|value| format!("{name}{value}\r\n")).unwrap_or_default()
        };
        write!(
            stream,
            "POST /mcp HTTP/1.1\r\nHost: {}\r\n{}{}Content-Type: application/json\r\n\
             Accept: application/json, text/event-stream\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            self.host,
            line("Authorization: Bearer ", &self.token),
            line("Mcp-Session-Id: ", &self.session),
            body.len()
        )
        .unwrap();
        stream
    }

    /// Ends the session. The status of the answer.
    pub(crate) fn end_session(&self) -> u16 {
        let mut stream = TcpStream::connect(&self.host).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let text = |value: &Option<String>| value.clone().unwrap();
        write!(
            stream,
            "DELETE /mcp HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\nMcp-Session-Id: {}\r\nConnection: close\r\n\r\n",
            self.host,
            text(&self.token),
            text(&self.session)
        )
        .unwrap();
        read(stream).status
    }

    /// Begins a session. The status if that is refused.
    pub(crate) fn hello(&mut self) -> Result<(), u16> {
        self.session = None;
        let client = json!({ "name": "test", "version": "1" });
        let params = json!({ "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client });
        let answer =
            self.post(&json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params }));
        if answer.status != 200 {
            return Err(answer.status);
        }
        let id = answer.head.lines().find_map(|line| line.strip_prefix("mcp-session-id: "));
        self.session = Some(id.unwrap().to_owned());
        self.post(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }));
        Ok(())
    }

    pub(crate) fn ask(&self, method: &str, params: &Value) -> Value {
        self.post(&json!({ "jsonrpc": "2.0", "id": 2, "method": method, "params": params })).message()
    }

    /// The names of the tools that are listed.
    pub(crate) fn tools(&self) -> Vec<String> {
        let listed = self.ask("tools/list", &json!({}));
        let tools = listed["result"]["tools"].as_array().unwrap_or_else(|| panic!("{listed}"));
        tools.iter().map(|tool| tool["name"].as_str().unwrap().to_owned()).collect()
    }

    /// Calls a tool: the text of its result, or of the error.
    pub(crate) fn call(&self, tool: &str, arguments: &Value) -> String {
        let answer = self.ask("tools/call", &json!({ "name": tool, "arguments": arguments }));
        let text = answer["result"]["content"][0]["text"].as_str().or(answer["error"]["message"].as_str());
        text.unwrap_or_else(|| panic!("{answer}")).to_owned()
    }

    /// Begins a call whose answer is read later.
    pub(crate) fn begin(&self, tool: &str, arguments: &Value) -> TcpStream {
        let params = json!({ "name": tool, "arguments": arguments });
        self.send(&json!({ "jsonrpc": "2.0", "id": 3, "method": "tools/call", "params": params }))
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        let _gone = self.process.kill();
        let _reaped = self.process.wait();
    }
}

/// Reads an answer to its end.
pub(crate) fn read(mut stream: TcpStream) -> Answer {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default();
    Answer { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
}
