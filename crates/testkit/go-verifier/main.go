// Command go-verifier checks a Toolgate log with Go's own transparency-log packages. It shares no code with Toolgate.
//
// It exits with 0 if all that was asked for holds, with 1 and a message if something does not, with 2 if it was
// called wrongly.
package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const (
	tileHeight = 8
	tileWidth  = 1 << tileHeight
)

// list is a flag that may be given several times.
type list []string

func (l *list) String() string     { return strings.Join(*l, ",") }
func (l *list) Set(s string) error { *l = append(*l, s); return nil }

type checkpoint struct {
	origin string
	size   int64
	root   tlog.Hash
	text   string
	note   *note.Note
}

type verifier struct {
	dir    string
	origin string
	keys   note.Verifiers
}

func main() {
	var older, witnesses, proofs, leaves list
	dir := flag.String("dir", "", "folder of the log (may be left out if only -proof is asked for)")
	vkey := flag.String("vkey", "", "verifier key of the log")
	origin := flag.String("origin", "", "name of the log (default: name of the key)")
	minSize := flag.Int64("min-size", 0, "fewest entries the log may have")
	maxEntry := flag.Int("max-entry", 65535, "longest entry")
	sample := flag.Int64("sample", 0, "how many entries to prove from the tiles alone (0: all)")
	quorum := flag.Int("quorum", 0, "how many witnesses must have cosigned")
	flag.Var(&older, "old", "an older checkpoint that the log must extend (may be repeated)")
	flag.Var(&witnesses, "witness", "verifier key of a witness (may be repeated)")
	flag.Var(&proofs, "proof", "a tlog-proof file (may be repeated, each with -leaf)")
	flag.Var(&leaves, "leaf", "the entry that the proof at the same position is about")
	flag.Parse()
	// What is said about a log has to be checked on one.
	ofLog := len(proofs) == 0 || len(older) > 0 || len(witnesses) > 0 || *minSize > 0 || *sample > 0 || *quorum > 0
	if *dir == "" && ofLog || *vkey == "" || flag.NArg() > 0 || len(proofs) != len(leaves) {
		flag.Usage()
		os.Exit(2)
	}
	key, err := note.NewVerifier(*vkey)
	if err != nil {
		fail("-vkey: %v", err)
	}
	v := verifier{dir: *dir, origin: *origin, keys: note.VerifierList(key)}
	if v.origin == "" {
		v.origin = key.Name()
	}
	for i := range proofs {
		if err := v.checkProof(proofs[i], leaves[i]); err != nil {
			fail("proof %s: %v", proofs[i], err)
		}
	}
	if *dir == "" {
		fmt.Printf("%s: %d proofs: sound\n", v.origin, len(proofs))
		return
	}
	tree, err := v.open(filepath.Join(*dir, "checkpoint"))
	if err != nil {
		fail("checkpoint: %v", err)
	}
	if tree.size < *minSize {
		fail("checkpoint: %d entries, at least %d must be there", tree.size, *minSize)
	}
	if err := cosigned(tree, witnesses, *quorum); err != nil {
		fail("checkpoint: %v", err)
	}
	hashes, err := v.readEntries(tree.size, *maxEntry)
	if err != nil {
		fail("%v", err)
	}
	if err := v.checkTree(tree, hashes, *sample); err != nil {
		fail("%v", err)
	}
	for _, file := range older {
		if err := v.extends(tree, hashes, file); err != nil {
			fail("older checkpoint %s: %v", file, err)
		}
	}
	fmt.Printf("%s: %d entries, root %s: sound\n", tree.origin, tree.size, tree.root)
}

func fail(format string, args ...interface{}) {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
	os.Exit(1)
}

// open reads a checkpoint, and checks its signature, form and origin.
func (v *verifier) open(file string) (*checkpoint, error) {
	bytes, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	return v.parse(bytes)
}

func (v *verifier) parse(msg []byte) (*checkpoint, error) {
	signed, err := note.Open(msg, v.keys)
	if err != nil {
		return nil, err
	}
	lines := strings.Split(signed.Text, "\n")
	if len(lines) != 4 || lines[3] != "" {
		return nil, errors.New("not exactly three lines")
	}
	if lines[0] != v.origin {
		return nil, fmt.Errorf("of the log %q, not %q", lines[0], v.origin)
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil || size < 0 || strconv.FormatInt(size, 10) != lines[1] {
		return nil, errors.New("the size is no canonical number")
	}
	root, err := parseHash(lines[2])
	if err != nil {
		return nil, err
	}
	return &checkpoint{lines[0], size, root, signed.Text, signed}, nil
}

func parseHash(text string) (tlog.Hash, error) {
	var hash tlog.Hash
	bytes, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil || len(bytes) != len(hash) || base64.StdEncoding.EncodeToString(bytes) != text {
		return hash, fmt.Errorf("%q is no hash in canonical base64", text)
	}
	copy(hash[:], bytes)
	return hash, nil
}

// path is where a tile or bundle is: C2SP's layout, which is not that of Go's own checksum database.
func path(kind string, index int64, width int) string {
	group := fmt.Sprintf("%03d", index%1000)
	for index >= 1000 {
		index /= 1000
		group = fmt.Sprintf("x%03d/%s", index%1000, group)
	}
	if width < tileWidth {
		group += fmt.Sprintf(".p/%d", width)
	}
	return filepath.Join("tile", kind, group)
}

// readEntries reads every bundle that the size needs, and returns the leaf hashes.
func (v *verifier) readEntries(size int64, maxEntry int) ([]tlog.Hash, error) {
	var hashes []tlog.Hash
	for index := int64(0); index*tileWidth < size; index++ {
		width := tileWidth
		if rest := size - index*tileWidth; rest < tileWidth {
			width = int(rest)
		}
		name := path("entries", index, width)
		bundle, err := os.ReadFile(filepath.Join(v.dir, name))
		if err != nil {
			return nil, err
		}
		for i := 0; i < width; i++ {
			if len(bundle) < 2 || len(bundle)-2 < int(binary.BigEndian.Uint16(bundle)) {
				return nil, fmt.Errorf("%s: ends inside entry %d", name, i)
			}
			length := int(binary.BigEndian.Uint16(bundle))
			if length > maxEntry {
				return nil, fmt.Errorf("%s: entry %d is %d bytes long", name, i, length)
			}
			hashes = append(hashes, tlog.RecordHash(bundle[2:2+length]))
			bundle = bundle[2+length:]
		}
		if len(bundle) > 0 {
			return nil, fmt.Errorf("%s: %d bytes too many", name, len(bundle))
		}
	}
	return hashes, nil
}

// storedHashes is the whole tree, computed from the leaf hashes.
type storedHashes []tlog.Hash

func (s storedHashes) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	hashes := make([]tlog.Hash, len(indexes))
	for i, index := range indexes {
		if index >= int64(len(s)) {
			return nil, errors.New("beyond the tree")
		}
		hashes[i] = s[index]
	}
	return hashes, nil
}

func compute(leaves []tlog.Hash) (storedHashes, error) {
	var stored storedHashes
	for i, leaf := range leaves {
		more, err := tlog.StoredHashesForRecordHash(int64(i), leaf, stored)
		if err != nil {
			return nil, err
		}
		stored = append(stored, more...)
	}
	return stored, nil
}

// tileReader reads tiles of the folder, for tlog's TileHashReader. Of a partial tile only the width that the tree's
// size needs has to be there; a narrower one is a part of it.
type tileReader struct {
	dir  string
	size int64
}

// widthOf is how wide the tile at this place is in a tree of the given size.
func widthOf(tile tlog.Tile, size int64) int {
	rest := size>>(tileHeight*tile.L) - tile.N*tileWidth
	if rest < tileWidth {
		return int(rest)
	}
	return tileWidth
}

func (r tileReader) Height() int                             { return tileHeight }
func (r tileReader) SaveTiles(tiles []tlog.Tile, _ [][]byte) {}
func (r tileReader) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	var data [][]byte
	for _, tile := range tiles {
		width := widthOf(tile, r.size)
		name := path(strconv.Itoa(tile.L), tile.N, width)
		bytes, err := os.ReadFile(filepath.Join(r.dir, name))
		if err != nil {
			return nil, err
		}
		if len(bytes) != width*tlog.HashSize || tile.W > width {
			return nil, fmt.Errorf("%s: %d bytes", name, len(bytes))
		}
		data = append(data, bytes[:tile.W*tlog.HashSize])
	}
	return data, nil
}

// checkTree compares root and tiles with what the entries lead to, then proves entries from the tiles alone.
func (v *verifier) checkTree(tree *checkpoint, leaves []tlog.Hash, sample int64) error {
	stored, err := compute(leaves)
	if err != nil {
		return err
	}
	root := emptyRoot()
	if tree.size > 0 {
		if root, err = tlog.TreeHash(tree.size, stored); err != nil {
			return err
		}
	}
	if root != tree.root {
		return fmt.Errorf("checkpoint: its root is %s, the entries lead to %s", tree.root, root)
	}
	for _, tile := range tlog.NewTiles(tileHeight, 0, tree.size) {
		if tile.W != widthOf(tile, tree.size) {
			continue // NewTiles lists every narrower version of a partial tile too
		}
		want, err := tlog.ReadTileData(tile, stored)
		if err != nil {
			return err
		}
		name := path(strconv.Itoa(tile.L), tile.N, tile.W)
		have, err := os.ReadFile(filepath.Join(v.dir, name))
		if err != nil {
			return err
		}
		if !bytes.Equal(have, want) {
			return fmt.Errorf("%s: not the tile that the entries lead to", name)
		}
	}
	if tree.size == 0 {
		return nil
	}
	step := int64(1)
	if sample > 0 && sample < tree.size {
		step = tree.size / sample
	}
	reader := tlog.TileHashReader(tlog.Tree{N: tree.size, Hash: tree.root}, tileReader{v.dir, tree.size})
	for index := int64(0); index < tree.size; index += step {
		proof, err := tlog.ProveRecord(tree.size, index, reader)
		if err != nil {
			return fmt.Errorf("entry %d: %v", index, err)
		}
		if err := tlog.CheckRecord(proof, tree.size, tree.root, index, leaves[index]); err != nil {
			return fmt.Errorf("entry %d: %v", index, err)
		}
	}
	return nil
}

func emptyRoot() tlog.Hash { return sha256.Sum256(nil) }

// extends checks that the tree extends the one of an older checkpoint.
func (v *verifier) extends(tree *checkpoint, leaves []tlog.Hash, file string) error {
	older, err := v.open(file)
	if err != nil {
		return err
	}
	if older.size > tree.size {
		return fmt.Errorf("it has %d entries, the log only %d", older.size, tree.size)
	}
	if older.size == 0 {
		if older.root != emptyRoot() {
			return errors.New("it is empty, but has another root")
		}
		return nil
	}
	reader := tlog.TileHashReader(tlog.Tree{N: tree.size, Hash: tree.root}, tileReader{v.dir, tree.size})
	proof, err := tlog.ProveTree(tree.size, older.size, reader)
	if err != nil {
		return err
	}
	return tlog.CheckTree(proof, tree.size, tree.root, older.size, older.root)
}

// cosigned checks that enough of the witnesses cosigned (cosignature/v1, type 0x04).
func cosigned(tree *checkpoint, witnesses list, quorum int) error {
	seen := map[string]bool{}
	for _, vkey := range witnesses {
		name, rest, _ := strings.Cut(vkey, "+")
		id, encoded, _ := strings.Cut(rest, "+")
		key, err := base64.StdEncoding.DecodeString(encoded)
		if err != nil || len(key) != 1+ed25519.PublicKeySize || key[0] != 4 {
			return fmt.Errorf("-witness %s: not a key of type 0x04", vkey)
		}
		digest := sha256.Sum256([]byte(name + "\n" + string(key)))
		if fmt.Sprintf("%x", digest[:4]) != id {
			return fmt.Errorf("-witness %s: its id is not that of its name and key", vkey)
		}
		for _, signature := range append(tree.note.Sigs, tree.note.UnverifiedSigs...) {
			if signature.Name != name || signature.Hash != binary.BigEndian.Uint32(digest[:4]) {
				continue
			}
			bytes, err := base64.StdEncoding.DecodeString(signature.Base64)
			if err != nil || len(bytes) != 4+8+ed25519.SignatureSize {
				return fmt.Errorf("the cosignature of %s has another length", name)
			}
			time := binary.BigEndian.Uint64(bytes[4:12])
			message := fmt.Sprintf("cosignature/v1\ntime %d\n%s", time, tree.text)
			if !ed25519.Verify(key[1:], []byte(message), bytes[12:]) {
				return fmt.Errorf("the cosignature of %s is not valid", name)
			}
			seen[string(key)] = true
		}
	}
	if len(seen) < quorum {
		return fmt.Errorf("%d witnesses cosigned, %d must", len(seen), quorum)
	}
	return nil
}

// checkProof checks a c2sp.org/tlog-proof file for an entry.
func (v *verifier) checkProof(file, leafFile string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	leaf, err := os.ReadFile(leafFile)
	if err != nil {
		return err
	}
	head, signed, found := strings.Cut(string(text), "\n\n")
	lines := strings.Split(head, "\n")
	if !found || lines[0] != "c2sp.org/tlog-proof@v1" {
		return errors.New("not a tlog-proof")
	}
	lines = lines[1:]
	if len(lines) > 0 && strings.HasPrefix(lines[0], "extra ") {
		lines = lines[1:]
	}
	if len(lines) == 0 || !strings.HasPrefix(lines[0], "index ") || len(lines) > 64 {
		return errors.New("no index, or too many hashes")
	}
	digits := strings.TrimPrefix(lines[0], "index ")
	index, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || strconv.FormatInt(index, 10) != digits {
		return errors.New("the index is no canonical number")
	}
	var proof tlog.RecordProof
	for _, line := range lines[1:] {
		hash, err := parseHash(line)
		if err != nil {
			return err
		}
		proof = append(proof, hash)
	}
	tree, err := v.parse([]byte(signed))
	if err != nil {
		return err
	}
	return tlog.CheckRecord(proof, tree.size, tree.root, index, tlog.RecordHash(leaf))
}
