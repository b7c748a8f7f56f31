//! Credentials that are minted from secrets: for one run of an agent, cut to what a call says, written down, and revoked.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::credentials::{assert_clean, child, contains, files, keep, memory, spellings, up, value};
use crate::home::{Gate, Home};
use crate::http::{Asked, Reply, mcp, serve};

const POLICY: &str = "@id(\"all\") @because(\"it is a test\")\npermit(principal, action, resource);\n";

/// A provider that mints by client credentials (RFC 6749), and revokes (RFC 7009); and an API that takes its tokens.
#[derive(Default)]
struct Provider {
    /// The tokens that are good, with their scopes.
    good: Mutex<Vec<(String, String)>>,
    /// All that was ever minted.
    minted: Mutex<Vec<String>>,
    /// What the API was called with.
    used: Mutex<Vec<String>>,
    /// What goes wrong with it.
    trouble: Mutex<&'static str>,
}

impl Provider {
    fn start() -> (Arc<Self>, u16) {
        let this = Arc::<Self>::default();
        let shared = Arc::clone(&this);
        (this, serve(move |asked| shared.answer(asked)))
    }

    fn answer(&self, asked: &Asked) -> Reply {
        match asked.path() {
            "/token" | "/revoke" if asked.method() != "POST" => Reply::json(405, &json!({})),
            "/token" => self.mint(asked),
            "/revoke" if *self.trouble.lock().unwrap() == "revoke" => Reply::json(503, &json!({})),
            "/revoke" => {
                let token = asked.field("token").unwrap();
                self.good.lock().unwrap().retain(|(good, _)| *good != token);
                Reply::json(200, &json!({}))
            }
            _ => self.call(asked),
        }
    }

    fn mint(&self, asked: &Asked) -> Reply {
        let trouble = *self.trouble.lock().unwrap();
        match trouble {
            "down" => return Reply::json(503, &json!({ "error": "temporarily_unavailable" })),
            // An error that repeats what was sent.
            "tells" => {
                return Reply::json(400, &json!({ "error": asked.header("authorization") }));
            }
            "ok-error" => return Reply::json(200, &json!({ "error": "invalid_client" })),
            "slow" => std::thread::sleep(std::time::Duration::from_secs(2)),
            "html" => return Reply { status: 200, kind: "text/html", body: "<p>hello".to_owned() },
            _ => {}
        }
        assert_eq!(asked.field("grant_type").unwrap(), "client_credentials");
        let mut minted = self.minted.lock().unwrap();
        let token = format!("{}-{}", value("minted"), minted.len());
        minted.push(token.clone());
        let mut scope = asked.field("scope").unwrap();
        if trouble == "wider" {
            scope.push_str(" admin");
        }
        self.good.lock().unwrap().push((token.clone(), scope.clone()));
        let expires: i64 = match trouble {
            "past" => -5,
            "now" => 0,
            "ever" => 1 << 52,
            "short" => 8,
            _ => 300,
        };
        // Some write it as a text.
        let expires = if trouble == "text" { json!("300") } else { json!(expires) };
        Reply::json(
            200,
            &json!({ "access_token": token, "token_type": "Bearer", "expires_in": expires, "scope": scope }),
        )
    }

    /// An MCP server that says with which scope it was called, and with which token.
    fn call(&self, asked: &Asked) -> Reply {
        let token = asked.bearer();
        let scope =
            self.good.lock().unwrap().iter().find(|(good, _)| *good == token).map(|(_, scope)| scope.clone());
        mcp(asked, |_arguments| {
            self.used.lock().unwrap().push(token.clone());
            format!("called by {token} with {scope:?}")
        })
    }

    fn good(&self) -> usize {
        self.good.lock().unwrap().len()
    }

    fn trouble(&self, trouble: &'static str) {
        *self.trouble.lock().unwrap() = trouble;
    }
}

/// A gate with a server that gets what is minted.
fn gate(name: &str, scope: &str) -> (Home, Arc<Provider>, Gate) {
    let home = Home::new(name);
    let (provider, port) = Provider::start();
    home.config(&format!("[servers.api]\nurl = \"http://127.0.0.1:{port}/mcp\"\nsecrets = [\"client\"]\n"));
    home.policy(POLICY);
    let with = [
        format!("token_url=http://127.0.0.1:{port}/token"),
        format!("revoke_url=http://127.0.0.1:{port}/revoke"),
        "client_id=gate".to_owned(),
        format!("scope={scope}"),
        "idle.scope=list".to_owned(),
    ];
    let mut uses = vec!["--mint", "oauth-client"];
    uses.extend(with.iter().flat_map(|with| ["--with", with]));
    let host = format!("127.0.0.1:{port}");
    uses.extend(["--slot", "header:Authorization", "--host", &host, "--tool", "api/*"]);
    keep(&home, "client", &value("client"), &uses);
    home.done(&["tool", "review"]);
    assert_eq!(provider.good(), 0, "what was minted for a look is revoked");
    let gate = up(&home);
    (home, provider, gate)
}

fn records(home: &Home) -> Vec<Value> {
    let tail = home.done(&["log", "tail", "-n", "200", "--json"]);
    let records = tail.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    records.filter(|record| record["kind"] == "lease").map(|record| record["body"].clone()).collect()
}

/// Waits until a record says this of a lease.
fn until(home: &Home, action: &str, count: usize) -> Vec<Value> {
    let mut found = Vec::new();
    wait(action, || {
        found = records(home).into_iter().filter(|record| record["action"] == action).collect();
        found.len() >= count
    });
    found
}

/// Waits, though not for ever.
fn wait(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..600 {
        if is_so() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    panic!("{what}: it never came");
}

#[test]
fn a_call_gets_a_credential_that_is_cut_to_what_it_says() {
    let (home, provider, gate) = gate("leases-scope", "repo:{args.repo}:read");
    let read = |repo: &str| gate.call("api__read", &json!({ "repo": repo }));
    let told = read("site");
    assert!(told.contains("with Some(\"repo:site:read\")"), "{told}");
    assert!(told.starts_with("called by ⟦secret:client#"), "{told}");
    for minted in &*provider.minted.lock().unwrap() {
        assert_clean(&told, minted);
    }
    // The same again needs nothing new, another repository does.
    let before = provider.minted.lock().unwrap().len();
    read("site");
    assert_eq!(provider.minted.lock().unwrap().len(), before);
    assert!(read("docs").contains("with Some(\"repo:docs:read\")"));
    assert_eq!(provider.minted.lock().unwrap().len(), before + 1);
    // What could mean more than itself gets nothing, and is not sent.
    let used = provider.used.lock().unwrap().len();
    for repo in ["*", "site admin", "a,b", "../site", ""] {
        let told = read(repo);
        assert!(!told.contains("called by"), "{repo}: {told}");
    }
    let told = gate.call("api__read", &json!({}));
    assert!(!told.contains("called by"), "{told}");
    assert_eq!(provider.used.lock().unwrap().len(), used);
    // It was written down before it was used: what was asked for, what was granted, and what can tell it again.
    let minted = until(&home, "minted", 2);
    let of = |scope: &str| {
        minted.iter().find(|record| record["granted"] == format!("scope={scope}")).unwrap().clone()
    };
    let one = of("repo:site:read");
    assert_eq!(one["requested"], "scope=repo:site:read ttl=600");
    assert_eq!(
        (&one["secret"], &one["provider"], &one["server"]),
        (&json!("client"), &json!("oauth-client"), &json!("api"))
    );
    assert_ne!(one["fingerprint"], of("repo:docs:read")["fingerprint"]);
    let listed: Value = serde_json::from_str(&home.done(&["lease", "list", "--json"])).unwrap();
    let ids: BTreeSet<&str> =
        listed.as_array().unwrap().iter().map(|row| row["lease"].as_str().unwrap()).collect();
    assert!(ids.contains(one["lease"].as_str().unwrap()), "{listed}");
    assert!(listed.as_array().unwrap().iter().all(|row| row["state"] == "live"), "{listed}");
    // With the run of the agent they end.
    gate.end_session();
    wait("revoked", || provider.good() == 0);
    until(&home, "revoked", ids.len());
    assert_eq!(home.done(&["lease", "list", "--json"]).trim(), "[]");
    // Nothing of it is in any file.
    drop(gate);
    let all = std::process::Command::new("grep")
        .args(["-r", "-c", &value("minted"), home.path().to_str().unwrap()])
        .output()
        .unwrap();
    let found = String::from_utf8(all.stdout).unwrap();
    assert!(found.lines().all(|line| line.ends_with(":0")), "{found}");
    home.done(&["log", "verify"]);
}

#[test]
fn a_provider_that_is_wrong_gives_nothing() {
    let (home, provider, gate) = gate("leases-wrong", "repo:{args.repo}:read");
    assert!(gate.call("api__read", &json!({ "repo": "site" })).contains("called by"));
    for trouble in ["down", "tells", "ok-error", "html", "wider", "past", "now", "text"] {
        provider.trouble(trouble);
        let used = provider.used.lock().unwrap().len();
        let told = gate.call("api__read", &json!({ "repo": trouble }));
        assert!(!told.contains("called by"), "{trouble}: {told}");
        assert!(told.contains("It did not run"), "{trouble}: {told}");
        assert_clean(&told, &value("client"));
        assert_eq!(provider.used.lock().unwrap().len(), used, "{trouble}");
    }
    provider.trouble("");
    let failed = until(&home, "failed", 4);
    let revoked = until(&home, "revoked", 6);
    let why = |of: &[Value], word: &str| {
        assert!(of.iter().any(|record| record["why"].as_str().unwrap().contains(word)), "{word}: {of:?}");
    };
    why(&failed, "it answered 503: temporarily_unavailable");
    why(&failed, "invalid_client");
    why(&failed, "its answer is no JSON");
    why(&revoked, "a scope that was not asked for");
    why(&revoked, "says no number of seconds");
    why(&revoked, "has ended already");
    // What it minted all the same was given back.
    for trouble in ["wider", "past", "now", "text"] {
        let good = provider.good.lock().unwrap();
        assert!(!good.iter().any(|(_, scope)| scope.contains(trouble)), "{trouble}: {good:?}");
    }
    assert_clean(&format!("{failed:?} {}", gate.err.all()), &value("client"));
    // What is said to last for ever is not believed.
    provider.trouble("ever");
    assert!(gate.call("api__read", &json!({ "repo": "ever" })).contains("called by"));
    let minted = until(&home, "minted", 5);
    let lasts = minted.last().unwrap()["expires_ms"].as_u64().unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
    assert!(u128::from(lasts) < now + 401 * 86_400_000, "{lasts}");
}

#[test]
fn what_is_under_way_at_the_end_is_revoked_too() {
    let (home, provider, gate) = gate("leases-under-way", "repo:{args.repo}:read");
    assert!(gate.call("api__read", &json!({ "repo": "site" })).contains("called by"));
    // The run ends while a provider is asked, and nobody waits for the answer any more.
    provider.trouble("slow");
    let minted = provider.minted.lock().unwrap().len();
    let call = gate.begin("api__read", &json!({ "repo": "slow" }));
    wait("the question", || {
        records(&home).iter().any(|record| record["requested"] == "scope=repo:slow:read ttl=600")
    });
    drop(call);
    gate.end_session();
    wait("the answer", || provider.minted.lock().unwrap().len() > minted);
    wait("the end", || provider.good() == 0);
    wait("the list", || home.done(&["lease", "list", "--json"]).trim() == "[]");
    assert_eq!(provider.minted.lock().unwrap().len(), minted + 1, "nothing is minted for a run that is over");
}

#[test]
fn what_cannot_be_revoked_at_once_is_revoked_later() {
    let (home, provider, gate) = gate("leases-later", "repo:{args.repo}:read");
    assert!(gate.call("api__read", &json!({ "repo": "site" })).contains("called by"));
    provider.trouble("revoke");
    home.done(&["lease", "revoke", "--all"]);
    // It is used no more, though it is good.
    wait("the mark", || home.shown(&["lease", "list"]).contains("being revoked"));
    let before = provider.minted.lock().unwrap().len();
    wait("another one", || {
        gate.call("api__read", &json!({ "repo": "site" }));
        provider.minted.lock().unwrap().len() > before
    });
    let old = provider.minted.lock().unwrap()[..before].to_vec();
    assert!(provider.good.lock().unwrap().iter().any(|(token, _)| old.contains(token)));
    provider.trouble("");
    wait("the end", || !provider.good.lock().unwrap().iter().any(|(token, _)| old.contains(token)));
}

#[test]
fn leases_are_revoked_when_somebody_says_so_and_when_their_gate_is_gone() {
    let (home, provider, mut gate) = gate("leases-revoke", "repo:{args.repo}:read");
    gate.call("api__read", &json!({ "repo": "site" }));
    let live = provider.good();
    assert!(live > 0);
    home.done(&["lease", "revoke", "--all"]);
    wait("revoked", || provider.good() == 0);
    // The next call gets another one.
    assert!(gate.call("api__read", &json!({ "repo": "site" })).contains("called by"));
    assert!(provider.good() > 0);
    // The secret changes: what was minted from the old one ends.
    let before = provider.minted.lock().unwrap().len();
    let done = home.fed(&["secret", "rotate", "client"], value("client2").as_bytes());
    assert!(done.status.success());
    wait("the old ones revoked", || {
        let minted = provider.minted.lock().unwrap();
        !provider.good.lock().unwrap().iter().any(|(token, _)| minted[..before].contains(token))
    });
    // A crash leaves them; whoever starts next revokes them, and says so.
    assert!(gate.call("api__read", &json!({ "repo": "site" })).contains("called by"));
    let left = provider.good();
    assert!(left > 0);
    gate.process.kill().unwrap();
    gate.process.wait().unwrap();
    let listed = home.shown(&["lease", "list"]);
    assert!(listed.contains("left behind"), "{listed}");
    let missing = home.run(&["lease", "revoke", "0000"]);
    assert!(String::from_utf8_lossy(&missing.stderr).contains("there is no such lease"));
    let revoked = records(&home).iter().filter(|record| record["action"] == "revoked").count();
    let again = home.up(&[]);
    until(&home, "revoked", revoked + left);
    assert_eq!(provider.good(), 0);
    drop(again);
    home.done(&["log", "verify"]);
}

/// Ends a process as a bug would, with a core dump if it leaves one.
fn abort(process: u32) {
    let process = rustix::process::Pid::from_raw(i32::try_from(process).unwrap()).unwrap();
    rustix::process::kill_process(process, rustix::process::Signal::ABORT).unwrap();
}

/// All processes that came from one, with itself.
fn family(process: u32) -> Vec<u32> {
    let mut all = vec![process];
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    for task in tasks {
        let children = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
        all.extend(children.split_whitespace().flat_map(|child| family(child.parse().unwrap())));
    }
    all
}

/// Whatever goes wrong, and whoever dies of it: secret and leases are in no file, no dump, no environment, no arguments, no answer, and
/// in the memory of nobody but the two processes that have them.
#[test]
fn after_faults_no_value_is_anywhere() {
    // Whoever may leave a core dump does.
    let core = rustix::process::getrlimit(rustix::process::Resource::Core);
    let core = rustix::process::Rlimit { current: core.maximum, ..core };
    rustix::process::setrlimit(rustix::process::Resource::Core, core).unwrap();
    let (home, provider, mut gate) = gate("leases-faults", "repo:{args.repo}:read");
    let secrets: Vec<String> =
        ["client", "minted"].iter().flat_map(|which| spellings(&value(which))).collect();
    let mut heard = String::new();
    let troubles =
        ["", "down", "tells", "ok-error", "html", "wider", "past", "now", "text", "ever", "revoke"];
    let all = |gate: &Gate, heard: &mut String, round: &str| {
        for trouble in troubles {
            provider.trouble(trouble);
            *heard += &gate.call("api__read", &json!({ "repo": format!("{round}{trouble}") }));
        }
        // Somebody who does not wait for the end.
        provider.trouble("slow");
        drop(gate.begin("api__read", &json!({ "repo": format!("{round}slow") })));
        provider.trouble("");
    };
    all(&gate, &mut heard, "a");
    let look = |gate: &Gate| {
        let holders = [child(gate, "toolgate-vault"), child(gate, "toolgate-proxy")];
        for process in family(gate.process.id()) {
            for place in ["environ", "cmdline"] {
                let text = std::fs::read(format!("/proc/{process}/{place}")).unwrap_or_default();
                assert!(!secrets.iter().any(|secret| contains(&text, secret)), "{place} of {process}");
            }
            if !holders.contains(&process) {
                let memory = memory(process);
                let found = secrets.iter().find(|secret| contains(&memory, secret));
                assert!(found.is_none(), "{found:?} in the memory of {process}");
            }
        }
    };
    look(&gate);
    // Whether memory can be read at all: only by root, if this is run by root.
    let is_root = rustix::process::geteuid().is_root();
    assert_eq!(contains(&memory(gate.process.id()), home.path().to_str().unwrap()), is_root);
    // The proxy dies with everything in its hands, then the vault of another gate, then that gate.
    abort(child(&gate, "toolgate-proxy"));
    all(&gate, &mut heard, "b");
    let mut said = format!("{}{}", gate.out.all(), gate.err.all());
    drop(gate);
    gate = home.up(&[]);
    gate.token = Some(home.done(&["agent", "rotate", "support"]).trim().to_owned());
    while gate.hello().is_err() {}
    all(&gate, &mut heard, "c");
    look(&gate);
    abort(child(&gate, "toolgate-vault"));
    all(&gate, &mut heard, "d");
    abort(gate.process.id());
    let ended = gate.process.wait().unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&ended), Some(6), "{ended}");
    said += &format!("{}{}", gate.out.all(), gate.err.all());
    said += &home.done(&["log", "tail", "-n", "500", "--json"]);
    for secret in &secrets {
        for (place, text) in [("what an agent heard", &heard), ("what was printed", &said)] {
            assert!(!text.contains(secret), "{secret} in {place}");
        }
    }
    assert!(heard.contains("called by ⟦secret:client#") && provider.minted.lock().unwrap().len() > 10);
    // A core dump would lie there too.
    let left = files(home.path());
    for secret in &secrets {
        assert!(!contains(&left, secret), "{secret} in a file");
    }
    home.done(&["log", "verify"]);
}
