//! Leases by real providers: a gate, a program in a cell that uses what was minted, and what is left of it afterwards. The suite `vault`
//! installs them: `cargo xtask test --with vault`.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on may stop")]
#![expect(clippy::indexing_slicing, reason = "a member that is not there is null, and compares unequal")]
#![expect(clippy::print_stderr, reason = "it tells how long revoking took")]

#[path = "../program/home.rs"]
#[expect(dead_code, reason = "the other tests need more of it")]
mod home;
#[path = "../program/http.rs"]
mod http;
mod servers;
mod stands;

use std::fs;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::home::{Gate, Home};
use crate::servers::{Bao, Moto, Postgres, Sshd};

const POLICY: &str = "@id(\"all\") @because(\"it is a test\")\npermit(principal, action, resource);\n";

/// A server that runs a line of shell for each of its tools.
fn teller(tools: &[(&str, &str)]) -> String {
    let listed: Vec<Value> = tools
        .iter()
        .map(|(name, _)| json!({ "name": name, "description": name, "inputSchema": { "type": "object" } }))
        .collect();
    let cases: String = tools
        .iter()
        .map(|(name, line)| format!("    *'\"name\":\"{name}\"'*) said=$({line}) ;;\n"))
        .collect();
    format!(
        r#"while read -r line; do
  id=$(printf %s "$line" | sed -n 's/.*"id":\([0-9]*\).*/\1/p')
  case $line in
    *'"initialize"'*) r='"result":{{"protocolVersion":"2025-06-18","capabilities":{{"tools":{{}}}},"serverInfo":{{"name":"t","version":"1"}}}}' ;;
    *'"tools/list"'*) r='"result":{{"tools":{tools}}}' ;;
    *'"tools/call"'*) case $line in
{cases}    esac
      said=$(printf %s "$said" | tr '\n\r"\\' '    ')
      r='"result":{{"content":[{{"type":"text","text":"'"$said"'"}}]}}' ;;
    *) r='"error":{{"code":-32601,"message":"no"}}' ;;
  esac
  [ -n "$id" ] && printf '{{"jsonrpc":"2.0","id":%s,%s}}\n' "$id" "$r"
done
"#,
        tools = Value::Array(listed),
    )
}

/// A gate with a program in a cell that reaches this port of the machine, and gets what is minted.
fn gate(name: &str, port: u16, root: &str, uses: &[&str], tools: &[(&str, &str)]) -> (Home, Gate) {
    let home = Home::new(name);
    home.write_with("work/teller.sh", &teller(tools), 0o755);
    let work = home.path().join("work");
    home.config(&format!(
        "[profiles.out]\nnet = [\"host.internal:{port},private\"]\n[servers.real]\ncommand = [\"/bin/sh\", \"teller.sh\"]\n\
         cwd = \"{}\"\nprofile = \"out\"\nsecrets = [\"root\"]\n",
        work.display()
    ));
    home.policy(POLICY);
    let added = home.fed(&[&["secret", "add", "root", "--tool", "real/*"], uses].concat(), root.as_bytes());
    assert!(added.status.success(), "{}", String::from_utf8_lossy(&added.stderr));
    let gate = up(&home);
    (home, gate)
}

/// Starts a gate, with an agent.
fn up(home: &Home) -> Gate {
    home.done(&["tool", "review"]);
    home.done(&["tool", "accept", "--all"]);
    let token = home.done(&["agent", "add", "support"]);
    let mut gate = home.up(&[]);
    gate.token = Some(token.trim().to_owned());
    gate.hello().unwrap();
    gate
}

fn leases(home: &Home, action: &str) -> Vec<Value> {
    let tail = home.done(&["log", "tail", "-n", "200", "--json"]);
    let records = tail.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let of = |record: &Value| record["kind"] == "lease" && record["body"]["action"] == action;
    records.filter(of).map(|record| record["body"].clone()).collect()
}

/// Waits, though not for ever. Returns for how long.
fn wait(what: &str, is_so: impl Fn() -> bool) -> Duration {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < Duration::from_secs(60), "{what}: it never came");
        std::thread::sleep(Duration::from_millis(20));
    }
    begin.elapsed()
}

/// Ends the credential proxy of a gate at once.
fn kill_proxy_of(gate: u32) {
    let tasks = fs::read_dir(format!("/proc/{gate}/task")).unwrap();
    let children = tasks.map(|task| fs::read_to_string(task.unwrap().path().join("children")).unwrap());
    let all = children.collect::<String>();
    let is_it =
        |child: &&str| fs::read(format!("/proc/{child}/cmdline")).unwrap().starts_with(b"toolgate-proxy");
    let proxy = all.split_whitespace().find(is_it).unwrap().parse().unwrap();
    let proxy = rustix::process::Pid::from_raw(proxy).unwrap();
    rustix::process::kill_process(proxy, rustix::process::Signal::KILL).unwrap();
}

/// Uses roles that were minted, has them revoked while a session is open, and has them revoked after a crash.
fn roles(name: &str, database: &Postgres, root: &str, uses: &[&str], theirs: &str, plants: bool) {
    let psql = format!("PGHOST=host.internal PGPORT={} psql -At -d postgres", database.port);
    let who = format!(
        "{psql} -c \"select count(*), pg_has_role(current_user, 'reader', 'member') from things\" 2>&1"
    );
    let write = format!("{psql} -c \"insert into things values (2)\" 2>&1");
    let hold = format!("{psql} -c 'select pg_sleep(600)' >/dev/null 2>&1 & echo held");
    let plant = format!(
        "{psql} -c \"create function f() returns text language sql security definer as 'select 1'\" 2>&1"
    );
    let tools = [("who", who.as_str()), ("write", &write), ("hold", &hold), ("plant", &plant)];
    let (home, mut gate) = gate(name, database.port, root, uses, &tools);
    let roles = || database.ask(&format!("select count(*) from pg_roles where rolname like '{theirs}'"));
    let sessions =
        || database.ask(&format!("select count(*) from pg_stat_activity where usename like '{theirs}'"));
    let call = |gate: &Gate, tool: &str| gate.call(&format!("real__{tool}"), &json!({}));
    assert_eq!(call(&gate, "who"), "1|t");
    let refused = call(&gate, "write");
    assert!(refused.contains("permission denied"), "{refused}");
    assert_eq!(roles(), "1");
    if plants {
        database.ask("grant create on schema public to reader");
        assert_eq!(call(&gate, "plant"), "CREATE FUNCTION");
    }
    assert_eq!(call(&gate, "hold"), "held");
    wait("a session", || sessions() != "0");
    home.done(&["lease", "revoke", "--all"]);
    let took = wait("revoked", || roles() == "0" && sessions() == "0");
    eprintln!("{name}: from the command to the end of sessions and role: {} ms", took.as_millis());
    if plants {
        // What it left runs as nobody who may do more.
        let owner = database.ask("select proowner::regrole from pg_proc where proname = 'f'");
        assert_eq!(owner, "reader");
    }
    // The program is started again, with another role.
    let told = (0..50).map(|_| call(&gate, "who")).find(|told| told == "1|t");
    assert!(told.is_some());
    assert_eq!(roles(), "1");
    // The credential proxy would still revoke what it could when its gate is gone.
    kill_proxy_of(gate.process.id());
    gate.process.kill().unwrap();
    gate.process.wait().unwrap();
    assert_eq!(roles(), "1", "a crash leaves it");
    let next = home.up(&[]);
    wait("revoked by the next gate", || roles() == "0");
    drop(next);
    for minted in leases(&home, "minted") {
        assert!(minted["fingerprint"].is_string() && minted["granted"].is_string(), "{minted}");
    }
    home.done(&["log", "verify"]);
}

#[test]
fn a_role_of_postgres_is_made_for_a_run_and_gone_after_it() {
    let database = Postgres::start();
    let root = database.url();
    let slots = ["--slot", "env:PGUSER=user", "--slot", "env:PGPASSWORD=password"];
    let mint = [
        "--mint",
        "postgres",
        "--with",
        "roles=reader",
        "--with",
        "connections=3",
        "--with",
        "statement_timeout=900s",
    ];
    roles("real-postgres", &database, &root, &[&mint[..], &slots].concat(), "toolgate\\_%", true);
    // What cannot be made leaves nothing behind.
    let home = Home::new("real-postgres-none");
    let wrong = ["secret", "add", "root", "--mint", "postgres", "--with", "roles=nobody", "--tool", "real/*"];
    assert!(home.fed(&[&wrong[..], &slots].concat(), root.as_bytes()).status.success());
    home.config("[servers.real]\ncommand = [\"/bin/cat\"]\nsecrets = [\"root\"]\n");
    home.run(&["tool", "review"]);
    let failed = leases(&home, "failed");
    assert!(failed[0]["why"].as_str().unwrap().contains("42704"), "{failed:?}");
    assert_eq!(database.ask("select count(*) from pg_roles where rolname like 'toolgate\\_%'"), "0");
    // The server writes down all statements, and was told no password in any.
    let log = database.log();
    let told: Vec<&str> = log.split(" LOGIN PASSWORD '").skip(1).collect();
    assert!(!told.is_empty() && told.iter().all(|told| told.starts_with("SCRAM-SHA-256$")), "{log}");
}

#[test]
fn what_openbao_gives_is_given_back() {
    let (database, bao) = (Postgres::start(), Bao::start());
    bao.serves(&database);
    let slots = ["--slot", "env:PGUSER=username", "--slot", "env:PGPASSWORD=password"];
    let url = format!("url={}", bao.url());
    let mint = ["--mint", "openbao", "--with", &url, "--with", "path=database/creds/reader"];
    roles("real-openbao", &database, Bao::TOKEN, &[&mint[..], &slots].concat(), "v-%", false);
}

#[test]
fn a_certificate_lets_one_log_in_as_it_says_and_nothing_else() {
    let sshd = Sshd::start();
    let port = sshd.port;
    let ssh = format!(
        "ssh -n -F none -i /run/secrets/id -o CertificateFile=/run/secrets/id-cert.pub -o IdentitiesOnly=yes -o BatchMode=yes \
         -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR -p {port}"
    );
    let login = format!("{ssh} root@host.internal echo something else 2>&1");
    let forward = format!("{ssh} -o ExitOnForwardFailure=yes -W 127.0.0.1:{port} root@host.internal 2>&1");
    let other = format!("{ssh} daemon@host.internal true 2>&1");
    let tools = [("login", login.as_str()), ("forward", &forward), ("other", &other)];
    let mint = [
        "--mint",
        "ssh-certificate",
        "--with",
        "principals=root",
        "--with",
        "force_command=echo forced",
        "--slot",
        "file:id=key",
        "--slot",
        "file:id-cert.pub=certificate",
    ];
    let (home, gate) = gate("real-ssh", port, &sshd.authority(), &mint, &tools);
    let call = |tool: &str| gate.call(&format!("real__{tool}"), &json!({}));
    let told = call("login");
    assert_eq!(told, "forced", "{} {}", sshd.log(), gate.err.all());
    let told = call("forward");
    assert!(!told.contains("SSH-2.0"), "{told}");
    let told = call("other");
    assert!(told.contains("Permission denied"), "{told}");
    assert!(sshd.log().contains("ID toolgate-"), "the certificate's name is in the log of the server");
    gate.end_session();
    wait("the end", || !leases(&home, "left").is_empty());
}

#[test]
fn what_another_vault_keeps_is_read_from_there() {
    let moto = Moto::start();
    let port = moto.port;
    let url = format!("url=http://127.0.0.1:{port}/");
    let mint = [
        "--mint",
        "aws-secret",
        "--with",
        &url,
        "--with",
        "secret_id=prod/db",
        "--slot",
        "env:DB_PASSWORD=password",
        "--slot",
        "file:first",
    ];
    let tell = "echo \"${#DB_PASSWORD} $DB_PASSWORD $(cat /run/secrets/first)\"";
    let (home, gate) = gate("real-aws-secret", port, &moto.keys(), &mint, &[("tell", tell)]);
    let told = gate.call("real__tell", &json!({}));
    assert!(told.contains("22 ⟦secret:root#") && !told.contains("kept-Zq83"), "{told}");
    assert_eq!(told.matches("⟦secret:root#").count(), 2, "{told}");
    let minted = leases(&home, "minted");
    assert_eq!(minted[0]["granted"], "secret_id=prod/db", "{minted:?}");
    no_longer(&home, &gate, &moto);
}

/// Whoever signs with another key gets nothing.
fn no_longer(home: &Home, gate: &Gate, moto: &Moto) {
    let (access, secret) = moto.keys().split_once(':').map(|(a, s)| (a.to_owned(), s.to_owned())).unwrap();
    let wrong = format!("{access}:{}", secret.chars().rev().collect::<String>());
    assert!(home.fed(&["secret", "rotate", "root"], wrong.as_bytes()).status.success());
    wait("the new keys", || {
        gate.call("real__tell", &json!({}));
        leases(home, "failed").iter().any(|failed| failed["why"].as_str().unwrap().contains("403"))
    });
}

#[test]
fn keys_of_a_role_are_minted_for_who_signs_as_he_should() {
    let moto = Moto::start();
    let port = moto.port;
    let tell = format!(
        "curl -sS --aws-sigv4 aws:amz:us-east-1:sts --user \"$AWS_ACCESS_KEY_ID:$AWS_SECRET_ACCESS_KEY\" \
         -H \"x-amz-security-token: $AWS_SESSION_TOKEN\" -d 'Action=GetCallerIdentity&Version=2011-06-15' \
         http://host.internal:{port}/ 2>&1"
    );
    let url = format!("sts_url=http://127.0.0.1:{port}/");
    let role = format!("role_arn={}", moto.role());
    let mint = [
        "--mint",
        "aws-sts",
        "--with",
        &role,
        "--with",
        &url,
        "--with",
        "policy={\"Version\":\"2012-10-17\",\"Statement\":[]}",
        "--slot",
        "env:AWS_ACCESS_KEY_ID=access_key_id",
        "--slot",
        "env:AWS_SECRET_ACCESS_KEY=secret_access_key",
        "--slot",
        "env:AWS_SESSION_TOKEN=session_token",
    ];
    let (home, gate) = gate("real-sts", port, &moto.keys(), &mint, &[("tell", &tell)]);
    let told = gate.call("real__tell", &json!({}));
    assert!(told.contains("assumed-role/") && told.contains("/toolgate"), "{told}");
    let minted = leases(&home, "minted");
    assert!(minted[0]["granted"].as_str().unwrap().contains("policy=sha256:"), "{minted:?}");
    no_longer(&home, &gate, &moto);
}
