use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt as _;
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::vault::keys::make_key_file;

/// A folder that is gone after the test, with a key file in it.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("toolgate-vault-{}-{number}", std::process::id()));
        let _old = fs::remove_dir_all(&path);
        crate::home::make_private(&path).unwrap();
        make_key_file(&path.join("vault.key")).unwrap();
        Self(path)
    }

    fn path(&self) -> PathBuf {
        self.0.join("vault")
    }

    fn key_file(&self) -> KeySource {
        KeySource::File { path: self.0.join("vault.key") }
    }

    fn surroundings(&self) -> Surroundings {
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        Surroundings { folder: self.0.clone(), uid, gid, variables: BTreeMap::new() }
    }

    /// Unlocks the vault without anybody.
    fn open(&self) -> Result<Vault, VaultError> {
        let surroundings = self.surroundings();
        let opener = Opener { surroundings: &surroundings, passphrase: None };
        Locked::read(&self.path(), &surroundings)?.open(&opener)
    }

    /// A vault with a secret in it.
    fn vault(&self) -> Vault {
        let surroundings = self.surroundings();
        let opener = Opener { surroundings: &surroundings, passphrase: None };
        let mut vault = Vault::make(&self.path(), self.key_file(), &opener).unwrap();
        vault.add(&name("github"), uses("api.example.com"), b"a value of the test", 1).unwrap();
        vault.save(&self.hold()).unwrap();
        vault
    }

    fn hold(&self) -> Held {
        Held::take(&self.path()).unwrap()
    }

    fn text(&self) -> String {
        fs::read_to_string(self.path()).unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _gone = fs::remove_dir_all(&self.0);
    }
}

fn name(name: &str) -> SecretName {
    name.parse().unwrap()
}

fn uses(host: &str) -> Uses {
    Uses {
        hosts: BTreeSet::from([host.parse().unwrap()]),
        mint: None,
        slots: BTreeSet::from(["header:authorization".parse().unwrap()]),
        tools: BTreeSet::from(["github/*".parse().unwrap()]),
        agents: BTreeSet::new(),
        placeholders: BTreeSet::new(),
    }
}

fn asked(passphrase: &str) -> impl Fn() -> Result<Zeroizing<String>, VaultError> + '_ {
    move || Ok(Zeroizing::new(passphrase.to_owned()))
}

#[test]
fn what_is_kept_comes_back_and_is_not_to_be_read_in_the_file() {
    let scratch = Scratch::new();
    drop(scratch.vault());
    let mut vault = scratch.open().unwrap();
    assert_eq!(vault.value(&name("github")).unwrap().as_slice(), b"a value of the test");
    let odd: [&[u8]; 5] = [b"line\nline\n", b"nul\0nul", b"\"quotes\"", b"%41%00", "ünï \u{202e}".as_bytes()];
    for (number, value) in odd.into_iter().enumerate() {
        vault.add(&name(&format!("odd{number}")), Uses::default(), value, 1).unwrap();
    }
    vault.rotate(&name("github"), b"another value of the test", 2).unwrap();
    vault.save(&scratch.hold()).unwrap();
    let vault = scratch.open().unwrap();
    for (number, value) in odd.into_iter().enumerate() {
        assert_eq!(vault.value(&name(&format!("odd{number}"))).unwrap().as_slice(), value);
    }
    let github = &vault.secrets()[&name("github")];
    assert_eq!((github.version, github.changed_ms, vault.generation()), (2, 2, 2));
    assert_eq!(vault.value(&name("github")).unwrap().as_slice(), b"another value of the test");
    let shown = format!("{}{vault:?}", scratch.text());
    assert!(!shown.contains("value of the test") && !shown.contains("YSB2YWx1ZSBvZiB0aGUgdGVzd"), "{shown}");
    assert_eq!(fs::metadata(scratch.path()).unwrap().mode() & 0o7777, 0o600);
}

#[test]
fn what_is_there_or_not_there_is_said() {
    let scratch = Scratch::new();
    assert!(matches!(scratch.open(), Err(VaultError::None(_))));
    let mut vault = scratch.vault();
    let add = vault.add(&name("github"), Uses::default(), b"x", 1);
    assert!(matches!(add, Err(VaultError::SecretThere(_))));
    assert!(matches!(vault.rotate(&name("gone"), b"x", 1), Err(VaultError::NoSecret(_))));
    assert!(matches!(vault.remove(&name("gone")), Err(VaultError::NoSecret(_))));
    assert!(matches!(vault.add(&name("empty"), Uses::default(), b"", 1), Err(VaultError::Value)));
    let long = vec![b'x'; MAX_VALUE + 1];
    assert!(matches!(vault.add(&name("long"), Uses::default(), &long, 1), Err(VaultError::Value)));
    vault.add(&name("longest"), Uses::default(), &long[1..], 1).unwrap();
    let surroundings = scratch.surroundings();
    let opener = Opener { surroundings: &surroundings, passphrase: None };
    assert!(matches!(Vault::make(&scratch.path(), scratch.key_file(), &opener), Err(VaultError::There(_))));
}

#[test]
fn a_changed_file_is_found_wherever_it_was_changed() {
    let scratch = Scratch::new();
    drop(scratch.vault());
    let whole = fs::read(scratch.path()).unwrap();
    for end in 0..whole.len() {
        fs::write(scratch.path(), &whole[..end]).unwrap();
        assert!(scratch.open().is_err(), "cut at {end}");
    }
    for at in 0..whole.len() {
        let mut other = whole.clone();
        other[at] ^= 1;
        fs::write(scratch.path(), &other).unwrap();
        assert!(scratch.open().is_err(), "changed at {at}");
    }
    fs::write(scratch.path(), [whole.as_slice(), b"\n"].concat()).unwrap();
    assert!(scratch.open().is_err());
    fs::write(scratch.path(), &whole).unwrap();
    scratch.open().unwrap();
}

/// The seal of each secret holds by itself, should the whole ever be written with a right end.
#[test]
fn a_value_fits_no_other_name_version_or_use() {
    let scratch = Scratch::new();
    let mut vault = scratch.vault();
    let sealed = vault.body.secrets[&name("github")].clone();
    let refused = |vault: &Vault, which: &str| {
        assert!(matches!(vault.value(&name(which)), Err(VaultError::Changed)), "{which}");
    };
    vault.body.secrets.insert(name("other"), sealed.clone());
    refused(&vault, "other");
    for change in [
        |sealed: &mut Sealed| sealed.uses = uses("evil.example"),
        |sealed: &mut Sealed| sealed.version = 2,
        |sealed: &mut Sealed| sealed.sealed[30] ^= 1,
        |sealed: &mut Sealed| sealed.sealed.truncate(20),
    ] {
        let mut other = sealed.clone();
        change(&mut other);
        vault.body.secrets.insert(name("github"), other);
        refused(&vault, "github");
    }
    vault.body.secrets.insert(name("github"), sealed);
    vault.value(&name("github")).unwrap();
}

#[test]
fn an_older_or_another_vault_is_noticed() {
    let scratch = Scratch::new();
    let mut vault = scratch.vault();
    let old = fs::read(scratch.path()).unwrap();
    vault.rotate(&name("github"), b"the new value", 2).unwrap();
    vault.save(&scratch.hold()).unwrap();
    let known = (vault.id().to_vec(), vault.generation());
    scratch.open().unwrap().follows(&known.0, known.1).unwrap();
    fs::write(scratch.path(), old).unwrap();
    let back = scratch.open().unwrap().follows(&known.0, known.1);
    assert!(matches!(back, Err(VaultError::RolledBack { found: 1, expected: 2 })), "{back:?}");
    fs::remove_file(scratch.path()).unwrap();
    drop(scratch.vault());
    assert!(matches!(scratch.open().unwrap().follows(&known.0, known.1), Err(VaultError::Another)));
}

#[test]
fn each_way_unlocks_it_and_no_other_key_does() {
    let scratch = Scratch::new();
    let mut vault = scratch.vault();
    let mut surroundings = scratch.surroundings();
    surroundings.variables.insert("CREDENTIALS_DIRECTORY".to_owned(), scratch.0.display().to_string());
    surroundings.variables.insert("PATH".to_owned(), "/usr/bin:/bin".to_owned());
    let right = asked("a long passphrase");
    let opener = Opener { surroundings: &surroundings, passphrase: Some(&right) };
    make_key_file(&scratch.0.join("of-systemd")).unwrap();
    let argv = ["cat".to_owned(), scratch.0.join("of-systemd").display().to_string()];
    vault.add_slot(KeySource::passphrase().unwrap(), &opener).unwrap();
    vault.add_slot(KeySource::Credential { name: "of-systemd".to_owned() }, &opener).unwrap();
    vault.add_slot(KeySource::Command { argv: argv.to_vec() }, &opener).unwrap();
    assert_eq!(vault.remove_slot(0).unwrap(), scratch.key_file());
    vault.save(&scratch.hold()).unwrap();
    fs::remove_file(scratch.0.join("vault.key")).unwrap();
    let open = |opener: &Opener<'_>| Locked::read(&scratch.path(), opener.surroundings)?.open(opener);
    let nobody = Opener { surroundings: &surroundings, passphrase: None };
    open(&nobody).unwrap();
    // Only the passphrase is left, then.
    fs::remove_file(scratch.0.join("of-systemd")).unwrap();
    assert!(open(&nobody).is_err());
    open(&opener).unwrap();
    let wrong = asked("a wrong passphrase");
    let error = open(&Opener { surroundings: &surroundings, passphrase: Some(&wrong) }).unwrap_err();
    assert_eq!(error.to_string(), "the vault does not open with a passphrase");
    // Somebody else's key file opens nothing.
    make_key_file(&scratch.0.join("of-systemd")).unwrap();
    assert!(matches!(open(&nobody), Err(VaultError::NobodyToAsk | VaultError::WrongKey(_))));
    for name in ["../vault.key", ".hidden", "", "a/b"] {
        let from = KeySource::Credential { name: name.to_owned() };
        assert!(matches!(nobody.key(&from), Err(VaultError::NoCredential(_))), "{name}");
    }
}

#[test]
fn the_last_way_to_unlock_stays() {
    let scratch = Scratch::new();
    let mut vault = scratch.vault();
    assert!(matches!(vault.remove_slot(0), Err(VaultError::LastSlot)));
    assert!(matches!(vault.remove_slot(1), Err(VaultError::Damaged(_))));
}

#[test]
fn keys_that_could_be_guessed_or_read_are_refused() {
    let scratch = Scratch::new();
    let surroundings = scratch.surroundings();
    let opener = Opener { surroundings: &surroundings, passphrase: None };
    let key = |argv: &[&str]| {
        let argv = argv.iter().map(|&word| word.to_owned()).collect();
        opener.key(&KeySource::Command { argv }).map(drop)
    };
    assert!(matches!(key(&["/bin/echo", "short"]), Err(VaultError::ShortKey { .. })));
    assert!(matches!(key(&["/bin/sh", "-c", "echo 0123456789012345; exit 1"]), Err(VaultError::Key { .. })));
    assert!(matches!(key(&["/nonexistent"]), Err(VaultError::Key { .. })));
    assert!(matches!(key(&[]), Err(VaultError::Key { .. })));
    let path = scratch.0.join("vault.key");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    assert!(matches!(opener.key(&scratch.key_file()), Err(VaultError::NotPrivate(_))));
    assert!(matches!(make_key_file(&path), Err(VaultError::KeyFileThere(_))));
    let cheap = KeySource::Passphrase { memory_kib: 8, passes: 1, salt: vec![0; 16] };
    let known = asked("a long passphrase");
    let opener = Opener { surroundings: &surroundings, passphrase: Some(&known) };
    assert!(matches!(opener.key(&cheap), Err(VaultError::Damaged(_))));
    let dear = KeySource::Passphrase { memory_kib: u32::MAX, passes: 3, salt: vec![0; 16] };
    assert!(matches!(opener.key(&dear), Err(VaultError::Damaged(_))));
}

#[test]
fn what_others_can_read_or_replace_is_not_used() {
    let scratch = Scratch::new();
    drop(scratch.vault());
    let path = scratch.path();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    assert!(matches!(scratch.open(), Err(VaultError::NotPrivate(_))));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    fs::rename(&path, scratch.0.join("elsewhere")).unwrap();
    std::os::unix::fs::symlink(scratch.0.join("elsewhere"), &path).unwrap();
    assert!(matches!(scratch.open(), Err(VaultError::NotPrivate(_))));
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert!(scratch.open().is_err());
}

/// Ten threads add a secret each, as ten processes would: all of them are there in the end.
#[test]
fn changes_at_once_come_one_after_another() {
    let scratch = Scratch::new();
    drop(scratch.vault());
    std::thread::scope(|scope| {
        for number in 0..10 {
            let scratch = &scratch;
            scope.spawn(move || {
                let held = scratch.hold();
                let mut vault = scratch.open().unwrap();
                vault.add(&name(&format!("of{number}")), Uses::default(), b"a value", 1).unwrap();
                vault.save(&held).unwrap();
            });
        }
    });
    let vault = scratch.open().unwrap();
    assert_eq!((vault.secrets().len(), vault.generation()), (11, 11));
}

#[test]
fn a_file_that_cannot_be_written_stays_as_it_was() {
    let scratch = Scratch::new();
    let mut vault = scratch.vault();
    let before = fs::read(scratch.path()).unwrap();
    let held = scratch.hold();
    // What is in the way is a draft of the same name that cannot be made.
    fs::create_dir(scratch.0.join(format!("vault.{}.new", std::process::id()))).unwrap();
    vault.rotate(&name("github"), b"never written", 2).unwrap();
    assert!(matches!(vault.save(&held), Err(VaultError::Io { .. })));
    assert_eq!(vault.generation(), 1);
    assert_eq!(fs::read(scratch.path()).unwrap(), before);
}

#[test]
fn a_renewed_value_replaces_the_one_it_was_got_with() {
    let scratch = Scratch::new();
    let mut vault = scratch.vault();
    let login = |more: &[(&str, &str)]| {
        let with = [("token_url", "https://id.example/token"), ("client_id", "c"), ("server", "api")];
        let with =
            with.iter().chain(more).map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        let mint = crate::vault::Mint::new(crate::vault::Provider::OauthRefresh, with).unwrap();
        Uses { mint: Some(mint), ..uses("api.example.com") }
    };
    vault.add(&name("login"), login(&[]), b"the first token", 1).unwrap();
    vault.add(&name("once"), login(&[("until_ms", "7")]), b"an access token", 1).unwrap();
    vault.save(&scratch.hold()).unwrap();
    let before = vault.generation();
    let renewed =
        |secret: &str, version: u32| scratch.open()?.renewed(&name(secret), version, b"the second token", 2);
    // Another version, something that does not renew itself, and what is not there.
    for (secret, version) in [("login", 0), ("login", 2), ("once", 1), ("github", 1)] {
        assert!(matches!(renewed(secret, version), Err(VaultError::NotThis(_))), "{secret} {version}");
    }
    assert!(matches!(renewed("nothing", 1), Err(VaultError::NoSecret(_))));
    assert_eq!(*scratch.open().unwrap().value(&name("login")).unwrap(), b"the first token");
    let bytes = renewed("login", 1).unwrap();
    assert_eq!(generation_of(&bytes).unwrap(), before + 1);
    replace(&scratch.path(), &bytes).unwrap();
    let now = scratch.open().unwrap();
    now.follows(now.id(), before + 1).unwrap();
    assert_eq!(*now.value(&name("login")).unwrap(), b"the second token");
    assert_eq!(now.secrets()[&name("login")].version, 2);
    assert_eq!(*now.value(&name("github")).unwrap(), b"a value of the test");
    // A second one that was got with the first is too late.
    assert!(matches!(renewed("login", 1), Err(VaultError::NotThis(_))));
}
