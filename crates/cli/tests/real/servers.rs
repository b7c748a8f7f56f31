//! Providers, each with a port of its own on loopback, and gone with the test.

use std::fs;
use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// A port that nobody has.
fn port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A server's process and its folder.
struct Running {
    process: Child,
    folder: PathBuf,
}

impl Running {
    /// Starts it, and waits until somebody listens.
    fn start(folder: PathBuf, port: u16, command: &mut Command) -> Self {
        let log = fs::File::create(folder.join("log")).unwrap();
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let this = Self { process: command.spawn().unwrap(), folder };
        let begin = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(begin.elapsed() < Duration::from_secs(90), "it never listened: {}", this.log());
            std::thread::sleep(Duration::from_millis(50));
        }
        this
    }

    fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.folder.join("log")).unwrap()).into_owned()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _gone = self.process.kill();
        let _reaped = self.process.wait();
        let _left = fs::remove_dir_all(&self.folder);
    }
}

pub(crate) fn folder(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("toolgate-real-{name}-{}-{}", std::process::id(), port()));
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// A program that the suite has installed.
pub(crate) fn installed(program: &str) -> PathBuf {
    let folder = std::env::var_os("TOOLGATE_SUITE_VAULT");
    PathBuf::from(folder.unwrap_or_else(|| panic!("run it by `cargo xtask test --with vault`"))).join(program)
}

pub(crate) fn done(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap();
    assert!(status.success(), "{command:?}: {}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).unwrap().trim().to_owned()
}

/// Where Debian 12 has PostgreSQL.
const POSTGRES: &str = "/usr/lib/postgresql/15/bin";

/// A PostgreSQL with a table that the role `reader` may read.
pub(crate) struct Postgres {
    running: Running,
    pub(crate) port: u16,
}

impl Postgres {
    const PASSWORD: &str = "of-the-test-only";

    pub(crate) fn start() -> Self {
        let (folder, port) = (folder("postgres"), port());
        fs::write(folder.join("password"), Self::PASSWORD).unwrap();
        let data = folder.join("data");
        done(Command::new("chown").arg("-R").arg("daemon").arg(&folder));
        let as_daemon = |program: &str| {
            let mut command = Command::new("setpriv");
            command.args(["--reuid=daemon", "--regid=daemon", "--clear-groups", "--"]);
            command.arg(Path::new(POSTGRES).join(program)).current_dir("/");
            command
        };
        let initdb = ["--username=admin", "--auth=scram-sha-256", "--no-sync", "--pwfile"];
        done(as_daemon("initdb").args(initdb).arg(folder.join("password")).arg("-D").arg(&data));
        let mut command = as_daemon("postgres");
        command.arg("-D").arg(&data).args(["-F", "-c", "listen_addresses=127.0.0.1", "-c"]);
        command.arg(format!("port={port}")).args([
            "-c",
            "unix_socket_directories=",
            "-c",
            "log_statement=all",
        ]);
        let this = Self { running: Running::start(folder, port, &mut command), port };
        let begin = Instant::now();
        while !this.psql("select 1").status.success() {
            assert!(begin.elapsed() < Duration::from_secs(60), "{}", this.log());
            std::thread::sleep(Duration::from_millis(100));
        }
        this.ask("create role reader; create table things (n int); insert into things values (1)");
        this.ask("grant select on things to reader");
        this
    }

    pub(crate) fn url(&self) -> String {
        format!("postgres://admin:{}@127.0.0.1:{}/postgres", Self::PASSWORD, self.port)
    }

    fn psql(&self, sql: &str) -> Output {
        let port = self.port.to_string();
        let mut command = Command::new(Path::new(POSTGRES).join("psql"));
        command.env("PGPASSWORD", Self::PASSWORD);
        let to = ["-h", "127.0.0.1", "-p", &port, "-U", "admin", "-d", "postgres", "-At", "-c", sql];
        command.args(to).output().unwrap()
    }

    /// What the administrator is told.
    pub(crate) fn ask(&self, sql: &str) -> String {
        let output = self.psql(sql);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    pub(crate) fn log(&self) -> String {
        self.running.log()
    }
}

/// An OpenBao, in memory.
pub(crate) struct Bao {
    _running: Running,
    port: u16,
}

impl Bao {
    pub(crate) const TOKEN: &str = "root-of-the-test-only";

    pub(crate) fn start() -> Self {
        let (folder, port) = (folder("bao"), port());
        let mut command = Command::new(installed("bao"));
        command.args(["server", "-dev", "-dev-no-store-token"]).env("HOME", &folder);
        command.arg(format!("-dev-root-token-id={}", Self::TOKEN));
        command.arg(format!("-dev-listen-address=127.0.0.1:{port}"));
        Self { _running: Running::start(folder, port, &mut command), port }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn bao(&self, arguments: &[&str]) {
        let mut command = Command::new(installed("bao"));
        command.args(arguments).env("BAO_ADDR", self.url()).env("BAO_TOKEN", Self::TOKEN).env("HOME", "/tmp");
        let begin = Instant::now();
        // It listens before it is unsealed.
        while !command.output().unwrap().status.success() {
            assert!(begin.elapsed() < Duration::from_secs(30), "{arguments:?}: {:?}", command.output());
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Has it make roles of this database.
    pub(crate) fn serves(&self, database: &Postgres) {
        self.bao(&["secrets", "enable", "database"]);
        let url = format!(
            "connection_url=postgresql://{{{{username}}}}:{{{{password}}}}@127.0.0.1:{}/postgres?sslmode=disable",
            database.port
        );
        let password = format!("password={}", Postgres::PASSWORD);
        self.bao(&[
            "write",
            "database/config/test",
            "plugin_name=postgresql-database-plugin",
            "allowed_roles=reader",
            "username=admin",
            &url,
            &password,
        ]);
        let make = "creation_statements=CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}' IN ROLE reader;";
        // What OpenBao does by itself leaves sessions open.
        let drop = "revocation_statements=ALTER ROLE \"{{name}}\" NOLOGIN; SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = '{{name}}'; DROP ROLE \"{{name}}\";";
        self.bao(&["write", "database/roles/reader", "db_name=test", "default_ttl=10m", make, drop]);
    }
}

/// An SSH server that believes an authority.
pub(crate) struct Sshd {
    running: Running,
    pub(crate) port: u16,
}

impl Sshd {
    pub(crate) fn start() -> Self {
        let (folder, port) = (folder("sshd"), port());
        for key in ["host", "ca"] {
            done(
                Command::new("ssh-keygen")
                    .args(["-q", "-t", "ed25519", "-N", "", "-f"])
                    .arg(folder.join(key)),
            );
        }
        fs::create_dir_all("/run/sshd").unwrap();
        let config = format!(
            "ListenAddress 127.0.0.1:{port}\nHostKey {0}/host\nTrustedUserCAKeys {0}/ca.pub\nPidFile none\nStrictModes no\n\
             PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin yes\nUsePAM no\nLogLevel VERBOSE\n",
            folder.display()
        );
        fs::write(folder.join("config"), config).unwrap();
        let mut command = Command::new("/usr/sbin/sshd");
        command.args(["-D", "-e", "-f"]).arg(folder.join("config"));
        Self { running: Running::start(folder, port, &mut command), port }
    }

    /// The private key of the authority.
    pub(crate) fn authority(&self) -> String {
        fs::read_to_string(self.running.folder.join("ca")).unwrap()
    }

    pub(crate) fn log(&self) -> String {
        self.running.log()
    }
}

/// A stand-in for AWS that checks signatures.
pub(crate) struct Moto {
    _running: Running,
    pub(crate) port: u16,
    keys: String,
    role: String,
}

/// Makes somebody who may take a role, and prints the keys and the role. After that many actions, signatures are checked.
const PREPARE: &str = r#"
import boto3, json, sys
def client(name):
    return boto3.client(name, endpoint_url=sys.argv[1], region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x")
iam = client("iam")
iam.create_user(UserName="gate")
keys = iam.create_access_key(UserName="gate")["AccessKey"]
allow = json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": ["sts:*", "secretsmanager:*"], "Resource": "*"}]})
iam.put_user_policy(UserName="gate", PolicyName="p", PolicyDocument=allow)
trust = json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}]})
role = iam.create_role(RoleName="deploy", AssumeRolePolicyDocument=trust)["Role"]
iam.put_role_policy(RoleName="deploy", PolicyName="p", PolicyDocument=allow)
client("secretsmanager").create_secret(Name="prod/db", SecretString=json.dumps({"login": "app", "password": "kept-Zq83-elsewhere-7b", "port": 5432}))
print(keys["AccessKeyId"] + ":" + keys["SecretAccessKey"])
print(role["Arn"])
"#;

impl Moto {
    pub(crate) fn start() -> Self {
        let (folder, port) = (folder("moto"), port());
        let mut command = Command::new(installed("moto_server"));
        command.args(["-H", "127.0.0.1", "-p", &port.to_string()]).env("INITIAL_NO_AUTH_ACTION_COUNT", "6");
        let running = Running::start(folder, port, &mut command);
        let mut python = Command::new(installed("python"));
        python.args(["-", &format!("http://127.0.0.1:{port}")]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut python = python.spawn().unwrap();
        python.stdin.take().unwrap().write_all(PREPARE.as_bytes()).unwrap();
        let output = python.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", running.log());
        let text = String::from_utf8(output.stdout).unwrap();
        let (keys, role) = text.trim().split_once('\n').unwrap();
        Self { keys: keys.to_owned(), role: role.to_owned(), _running: running, port }
    }

    pub(crate) fn keys(&self) -> String {
        self.keys.clone()
    }

    pub(crate) fn role(&self) -> &str {
        &self.role
    }
}

/// The npm package `oidc-provider`, with one client.
pub(crate) struct Oidc {
    running: Running,
    pub(crate) port: u16,
}

const OIDC: &str = r#"
import { Provider } from 'oidc-provider';
import { appendFileSync } from 'node:fs';
const [port, secret, told] = process.argv.slice(2);
const provider = new Provider(`http://127.0.0.1:${port}`, {
  clients: [{ client_id: 'gate', client_secret: secret, grant_types: ['client_credentials'], redirect_uris: [],
    response_types: [], scope: 'read' }],
  scopes: ['openid', 'offline_access', 'read', 'admin'],
  rotateRefreshToken: true,
  pkce: { required: () => true },
  findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
  features: { clientCredentials: { enabled: true }, introspection: { enabled: true }, revocation: { enabled: true },
    registration: { enabled: true }, devInteractions: { enabled: true },
    resourceIndicators: { enabled: true, defaultResource: () => [], useGrantedResource: () => true,
      getResourceServerInfo: (_, resource) => ({ scope: 'read admin', audience: resource, accessTokenTTL: 300 }) } },
});
provider.on('refresh_token.saved', (token) => appendFileSync(told, `${token.jti} ${token.clientId}\n`));
provider.listen(Number(port), '127.0.0.1');
"#;

impl Oidc {
    pub(crate) const SECRET: &str = "of the test: only+here%41";

    pub(crate) fn start() -> Self {
        let (folder, port) = (folder("oidc"), port());
        // Packages are found from where the script is.
        let modules = std::env::var_os("TOOLGATE_SUITE_VAULT_NODE").unwrap();
        std::os::unix::fs::symlink(Path::new(&modules).join("node_modules"), folder.join("node_modules"))
            .unwrap();
        let script = folder.join("server.mjs");
        fs::write(&script, OIDC).unwrap();
        let mut command = Command::new("node");
        command.arg("--preserve-symlinks-main").arg(script).args([&port.to_string(), Self::SECRET]);
        command.arg(folder.join("refresh-tokens"));
        Self { running: Running::start(folder, port, &mut command), port }
    }

    /// The refresh tokens that it has given, each with its client.
    pub(crate) fn refresh_tokens(&self) -> Vec<(String, String)> {
        let text = fs::read_to_string(self.running.folder.join("refresh-tokens")).unwrap();
        let mut all: Vec<(String, String)> = Vec::new();
        for line in text.lines() {
            let (token, client) = line.split_once(' ').unwrap();
            // It saves one again when it is used up.
            if !all.iter().any(|(known, _)| known == token) {
                all.push((token.to_owned(), client.to_owned()));
            }
        }
        all
    }

    /// Logs in and consents as a person with a browser does. The last page that is shown.
    pub(crate) fn consents(&self, url: &str) -> String {
        let jar = self.running.folder.join(format!("cookies-{}", port()));
        let browse = |more: &[&str], url: &str| {
            let mut curl = Command::new("curl");
            curl.args(["-sS", "-L", "-c"]).arg(&jar).arg("-b").arg(&jar).args(more).arg(url);
            done(&mut curl)
        };
        let action = |page: &str| {
            let rest = page.split("action=\"").nth(1).unwrap_or_else(|| panic!("no form: {page}"));
            rest.split('"').next().unwrap().to_owned()
        };
        let login = browse(&[], url);
        let consent = browse(&["-d", "prompt=login&login=ada&password=x"], &action(&login));
        browse(&["-d", "prompt=consent"], &action(&consent))
    }

    /// What it answers to whoever asks with a refresh token.
    pub(crate) fn refreshed(&self, token: &str, client: &str) -> serde_json::Value {
        let data = format!("grant_type=refresh_token&refresh_token={token}&client_id={client}");
        let url = format!("http://127.0.0.1:{}/token", self.port);
        serde_json::from_str(&done(Command::new("curl").args(["-sS", "-d", &data, &url]))).unwrap()
    }

    /// What the provider says of a token.
    pub(crate) fn says(&self, token: &str) -> serde_json::Value {
        let encoded: String = Self::SECRET.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let url = format!("http://127.0.0.1:{}/token/introspection", self.port);
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--user", &format!("gate:{encoded}"), "--data", &format!("token={token}"), &url]);
        serde_json::from_str(&done(&mut curl)).unwrap()
    }
}
