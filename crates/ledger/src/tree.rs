//! The Merkle tree of RFC 6962, section 2.1: hashing, proofs and their verification.
//!
//! A *node* (`level`, `index`) is the root of the complete subtree over the leaves `index << level` up to
//! `(index + 1) << level`. Every proof is made of nodes, so whoever can look up nodes can make proofs.

use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};

/// A SHA-256 hash. Shown, and written in records, as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hash(pub [u8; 32]);

impl Hash {
    /// The hash of `bytes`, without any prefix.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// The hash of a leaf: of a zero byte and the entry.
    #[must_use]
    pub fn leaf(entry: &[u8]) -> Self {
        let mut hash = Sha256::new();
        hash.update([0]);
        hash.update(entry);
        Self(hash.finalize().into())
    }

    /// The hash of an inner node: of a one byte and its two children.
    #[must_use]
    pub fn node(left: &Self, right: &Self) -> Self {
        let mut input = [1; 65];
        let (_, children) = input.split_at_mut(1);
        for (to, from) in children.iter_mut().zip(left.0.iter().chain(&right.0)) {
            *to = *from;
        }
        Self::of(&input)
    }

    /// The root of the tree without leaves.
    #[must_use]
    pub fn empty_root() -> Self {
        Self::of(&[])
    }

    /// Reads 64 hexadecimal digits. Capital letters are refused: one hash has one spelling.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        if pairs.len() != 32 || !rest.is_empty() {
            return None;
        }
        let mut bytes = [0; 32];
        for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
            *byte = (nibble(*high)? << 4) | nibble(*low)?;
        }
        Some(Self(bytes))
    }

    /// Calls `then` with the 64 digits, without allocating.
    fn with_hex<T>(&self, then: impl FnOnce(&str) -> T) -> T {
        let mut text = [0_u8; 64];
        let (pairs, _) = text.as_chunks_mut::<2>();
        for ([high, low], byte) in pairs.iter_mut().zip(self.0) {
            *high = digit(byte >> 4);
            *low = digit(byte & 0xf);
        }
        then(std::str::from_utf8(&text).unwrap_or_default())
    }
}

const fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

const fn digit(nibble: u8) -> u8 {
    if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.with_hex(|text| f.pad(text))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Hash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.with_hex(|text| serializer.serialize_str(text))
    }
}

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::from_hex(&text).ok_or_else(|| D::Error::custom("a hash is 64 lower-case hexadecimal digits"))
    }
}

/// The roots of the complete subtrees that a tree of some size consists of: all that is needed to let it grow.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    /// From left to right, so from high to low: one for each bit set in `size`.
    peaks: Vec<Hash>,
}

impl Frontier {
    /// How many leaves the tree has.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Adds one leaf.
    pub fn push(&mut self, leaf: Hash) {
        self.push_node(0, leaf);
    }

    /// Adds a complete subtree of `1 << level` leaves. The size so far must be a multiple of that.
    pub fn push_node(&mut self, level: u32, mut hash: Hash) {
        debug_assert!(self.size.is_multiple_of(1 << level), "a subtree starts where its size says");
        let mut carry = self.size >> level;
        while carry & 1 == 1 {
            if let Some(left) = self.peaks.pop() {
                hash = Hash::node(&left, &hash);
            }
            carry >>= 1;
        }
        self.peaks.push(hash);
        self.size += 1 << level;
    }

    /// The root of the tree.
    #[must_use]
    pub fn root(&self) -> Hash {
        let mut peaks = self.peaks.iter().rev();
        let Some(last) = peaks.next() else {
            return Hash::empty_root();
        };
        peaks.fold(*last, |right, left| Hash::node(left, &right))
    }
}

/// The root of a complete subtree, given its leaves. Their number must be a power of two.
#[must_use]
pub fn complete_root(hashes: &[Hash]) -> Hash {
    let mut row = hashes.to_vec();
    while row.len() > 1 {
        row = row.as_chunks::<2>().0.iter().map(|[left, right]| Hash::node(left, right)).collect();
    }
    row.first().copied().unwrap_or_else(Hash::empty_root)
}

/// Makes the inclusion proof of the leaf `index` in the tree of `size` leaves. `node` looks up a complete subtree.
///
/// # Errors
/// Whatever `node` fails with. `index` must be smaller than `size`; else the proof is of no use to anybody.
pub fn prove_inclusion<E>(
    index: u64,
    size: u64,
    node: &mut impl FnMut(u32, u64) -> Result<Hash, E>,
) -> Result<Vec<Hash>, E> {
    let (mut start, mut end) = (0, size);
    let mut proof = Vec::new();
    while end - start > 1 {
        let middle = start + split(end - start);
        if index < middle {
            proof.push(range_root(middle, end, node)?);
            end = middle;
        } else {
            proof.push(range_root(start, middle, node)?);
            start = middle;
        }
    }
    proof.reverse();
    Ok(proof)
}

/// Makes the proof that the tree of `size` leaves extends the one of `older` leaves. It is empty if the older tree is
/// empty or the two are the same size.
///
/// # Errors
/// Whatever `node` fails with. `older` must not be larger than `size`.
pub fn prove_consistency<E>(
    older: u64,
    size: u64,
    node: &mut impl FnMut(u32, u64) -> Result<Hash, E>,
) -> Result<Vec<Hash>, E> {
    if older == 0 || older >= size {
        return Ok(Vec::new());
    }
    let (mut start, mut end) = (0, size);
    let mut proof = Vec::new();
    // Walk down to the subtree whose right border is the older tree's. The verifier knows it already if it is the
    // whole older tree.
    while end != older {
        let middle = start + split(end - start);
        if older <= middle {
            proof.push(range_root(middle, end, node)?);
            end = middle;
        } else {
            proof.push(range_root(start, middle, node)?);
            start = middle;
        }
    }
    if start != 0 {
        proof.push(range_root(start, end, node)?);
    }
    proof.reverse();
    Ok(proof)
}

/// The largest power of two smaller than `n`, which is at least 2.
const fn split(n: u64) -> u64 {
    1 << (63 - (n - 1).leading_zeros())
}

/// The root over the leaves `start..end`, where `start` is a multiple of every power of two up to the length.
fn range_root<E>(
    start: u64,
    end: u64,
    node: &mut impl FnMut(u32, u64) -> Result<Hash, E>,
) -> Result<Hash, E> {
    let mut frontier = Frontier::default();
    let mut at = start;
    while at < end {
        let level = 63 - (end - at).leading_zeros();
        frontier.push_node(level, node(level, at >> level)?);
        at += 1 << level;
    }
    Ok(frontier.root())
}

/// Why a proof does not prove what it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// The proof leads to another root.
    #[error("the proof leads to another root")]
    AnotherRoot,
    /// The proof has more or fewer hashes than it needs.
    #[error("the proof has {0} hashes, which is not as many as it needs")]
    Length(usize),
    /// There is no such leaf, or the older tree is larger.
    #[error("{0} is beyond the tree of {1} leaves")]
    Range(u64, u64),
}

/// Checks that `leaf` is at `index` in the tree of `size` leaves with this root (RFC 9162, section 2.1.3.2).
///
/// # Errors
/// It is not, or the proof does not show it.
pub fn verify_inclusion(
    index: u64,
    size: u64,
    leaf: Hash,
    proof: &[Hash],
    root: Hash,
) -> Result<(), ProofError> {
    if index >= size {
        return Err(ProofError::Range(index, size));
    }
    let mut hash = leaf;
    climb(index, size - 1, proof, |sibling, side| {
        hash = match side {
            Side::Left => Hash::node(sibling, &hash),
            Side::Right => Hash::node(&hash, sibling),
        };
    })
    .map_err(|Incomplete| ProofError::Length(proof.len()))?;
    if hash == root { Ok(()) } else { Err(ProofError::AnotherRoot) }
}

/// On which side of the path a sibling stands.
enum Side {
    Left,
    Right,
}

/// The siblings are not as many as the path has.
struct Incomplete;

/// Goes from the node `at`, of a level whose last is `last`, up to the root, by the siblings that a proof names.
fn climb(
    mut at: u64,
    mut last: u64,
    siblings: &[Hash],
    mut join: impl FnMut(&Hash, Side),
) -> Result<(), Incomplete> {
    for sibling in siblings {
        if last == 0 {
            return Err(Incomplete);
        }
        if at & 1 == 1 || at == last {
            join(sibling, Side::Left);
            while at & 1 == 0 && at != 0 {
                at >>= 1;
                last >>= 1;
            }
        } else {
            join(sibling, Side::Right);
        }
        at >>= 1;
        last >>= 1;
    }
    if last == 0 { Ok(()) } else { Err(Incomplete) }
}

/// Checks that the tree `size`, `root` extends the tree `older`, `older_root` (RFC 9162, section 2.1.4.2).
///
/// # Errors
/// It does not, or the proof does not show it.
pub fn verify_consistency(
    (older, older_root): (u64, Hash),
    (size, root): (u64, Hash),
    proof: &[Hash],
) -> Result<(), ProofError> {
    if older > size {
        return Err(ProofError::Range(older, size));
    }
    if older == 0 || older == size {
        let same = if older == 0 { older_root == Hash::empty_root() } else { older_root == root };
        return match (proof.is_empty(), same && (size != 0 || root == older_root)) {
            (false, _) => Err(ProofError::Length(proof.len())),
            (true, false) => Err(ProofError::AnotherRoot),
            (true, true) => Ok(()),
        };
    }
    let wrong_length = || ProofError::Length(proof.len());
    let (first, rest) = if older.is_power_of_two() {
        (&older_root, proof)
    } else {
        proof.split_first().ok_or_else(wrong_length)?
    };
    let (mut at, mut last) = (older - 1, size - 1);
    while at & 1 == 1 {
        at >>= 1;
        last >>= 1;
    }
    let (mut old_hash, mut hash) = (*first, *first);
    climb(at, last, rest, |sibling, side| match side {
        Side::Left => {
            old_hash = Hash::node(sibling, &old_hash);
            hash = Hash::node(sibling, &hash);
        }
        Side::Right => hash = Hash::node(&hash, sibling),
    })
    .map_err(|Incomplete| wrong_length())?;
    if old_hash == older_root && hash == root { Ok(()) } else { Err(ProofError::AnotherRoot) }
}

#[cfg(test)]
mod tests {
    use ct_merkle::mem_backed_tree::MemoryBackedTree;
    use proptest::prelude::*;

    use super::*;

    fn leaves(size: u64) -> Vec<Hash> {
        (0..size).map(|i| Hash::leaf(&i.to_be_bytes())).collect()
    }

    fn frontier(leaves: &[Hash]) -> Frontier {
        let mut frontier = Frontier::default();
        leaves.iter().for_each(|leaf| frontier.push(*leaf));
        frontier
    }

    fn node_of(leaves: &[Hash]) -> impl FnMut(u32, u64) -> Result<Hash, ()> + '_ {
        |level, index| {
            let start = usize::try_from(index << level).unwrap();
            leaves.get(start..start + (1 << level)).map(complete_root).ok_or(())
        }
    }

    fn oracle(size: u64) -> MemoryBackedTree<sha2::Sha256, Vec<u8>> {
        let mut tree = MemoryBackedTree::new();
        (0..size).for_each(|i| tree.push(i.to_be_bytes().to_vec()));
        tree
    }

    #[test]
    fn roots_and_proofs_equal_those_of_another_implementation() {
        for size in [1, 2, 3, 4, 5, 7, 8, 9, 31, 32, 33, 100] {
            let (all, other) = (leaves(size), oracle(size));
            assert_eq!(frontier(&all).root().0, <[u8; 32]>::from(*other.root().as_bytes()), "size {size}");
            for index in 0..size {
                let mine = prove_inclusion(index, size, &mut node_of(&all)).unwrap();
                let theirs = other.prove_inclusion(usize::try_from(index).unwrap());
                assert_eq!(
                    mine.iter().flat_map(|h| h.0).collect::<Vec<_>>(),
                    theirs.as_bytes(),
                    "{index} of {size}"
                );
            }
            for older in 1..size {
                let mine = prove_consistency(older, size, &mut node_of(&all)).unwrap();
                let theirs = other.prove_consistency(usize::try_from(size - older).unwrap());
                assert_eq!(
                    mine.iter().flat_map(|h| h.0).collect::<Vec<_>>(),
                    theirs.as_bytes(),
                    "{older} of {size}"
                );
            }
        }
    }

    #[test]
    fn hex_has_one_spelling() {
        let hash = Hash::of(b"a");
        let text = hash.to_string();
        assert_eq!(Hash::from_hex(&text), Some(hash));
        for wrong in [
            text.to_uppercase(),
            text.split_at(1).1.to_owned(),
            format!("{text}00"),
            text.replace(text.split_at(1).0, "g"),
        ] {
            assert_eq!(Hash::from_hex(&wrong), None, "input: {wrong:?}");
        }
    }

    #[test]
    fn trees_that_are_empty_or_the_same_size() {
        let (empty, one) = (Hash::empty_root(), Hash::leaf(b""));
        assert_eq!(Frontier::default().root(), empty);
        assert_eq!(verify_consistency((0, empty), (0, empty), &[]), Ok(()));
        assert_eq!(verify_consistency((0, empty), (1, one), &[]), Ok(()));
        assert_eq!(verify_consistency((1, one), (1, one), &[]), Ok(()));
        assert_eq!(verify_consistency((0, one), (1, one), &[]), Err(ProofError::AnotherRoot));
        assert_eq!(verify_consistency((0, empty), (0, one), &[]), Err(ProofError::AnotherRoot));
        assert_eq!(verify_consistency((1, one), (1, empty), &[]), Err(ProofError::AnotherRoot));
        assert_eq!(verify_consistency((1, one), (1, one), &[one]), Err(ProofError::Length(1)));
        assert_eq!(verify_consistency((2, one), (1, one), &[]), Err(ProofError::Range(2, 1)));
        assert_eq!(verify_inclusion(0, 0, one, &[], empty), Err(ProofError::Range(0, 0)));
    }

    proptest! {
        #[test]
        fn inclusion_holds_and_nothing_else_does(size in 1_u64..700, at in any::<u64>(), other in any::<u64>(), cut in any::<bool>()) {
            let all = leaves(size);
            let (index, other) = (at % size, other % size);
            let root = frontier(&all).root();
            let leaf = Hash::leaf(&index.to_be_bytes());
            let mut proof = prove_inclusion(index, size, &mut node_of(&all)).unwrap();
            prop_assert_eq!(verify_inclusion(index, size, leaf, &proof, root), Ok(()));
            prop_assert!(verify_inclusion(index, size, Hash::leaf(b"x"), &proof, root).is_err());
            prop_assert!(other == index || verify_inclusion(other, size, leaf, &proof, root).is_err());
            if cut { proof.pop(); } else { proof.push(leaf); }
            prop_assert!(verify_inclusion(index, size, leaf, &proof, root).is_err() || size == 1 && cut);
        }

        #[test]
        fn consistency_holds_and_nothing_else_does(size in 1_u64..700, older in 1_u64..700, at in any::<usize>()) {
            let all = leaves(size);
            let older = older.min(size);
            let root = frontier(&all).root();
            let older_root = frontier(&all[..usize::try_from(older).unwrap()]).root();
            let proof = prove_consistency(older, size, &mut node_of(&all)).unwrap();
            prop_assert_eq!(verify_consistency((older, older_root), (size, root), &proof), Ok(()));
            prop_assert!(verify_consistency((older, Hash::leaf(b"x")), (size, root), &proof).is_err());
            prop_assert!(verify_consistency((older, older_root), (size, Hash::leaf(b"x")), &proof).is_err());
            if !proof.is_empty() {
                let mut bent = proof.clone();
                let at = at % bent.len();
                bent[at].0[0] ^= 1;
                prop_assert!(verify_consistency((older, older_root), (size, root), &bent).is_err());
                prop_assert!(verify_consistency((older, older_root), (size, root), &proof[1..]).is_err());
            }
        }
    }
}
