"""One blob: opened as section 17.1 says, its map from sections 9 to 11."""

import struct

from image import NONE, ROOT

THIN, EXTERNAL, KNOWN_INVALID = 1, 8, 15
SLOT = 512


class CannotOpen(Exception):
    """SPDK would not open this blob; the store loads nevertheless."""


class Blob:
    """Flags, xattrs, internal xattrs and cluster map."""

    def __init__(self, image, masks, index):
        self.image, self.masks = image, masks
        self.index, self.id = index, ROOT + index
        self.invalid = self.data_ro = self.md_ro = 0
        self.xattrs, self.internal = {}, {}
        self.map, self._table, self._size = [], None, None
        self._has_runs = False
        for page in self._chain():
            for kind, payload in page.descriptors():
                self._descriptor(kind, payload)
        if self._table is not None:
            self._read_extents()

    thin = property(lambda self: bool(self.invalid & THIN))
    read_only = property(lambda self: bool(self.data_ro & 1))

    def parent(self):
        """None, a blob id, or ("external", id bytes)."""
        if self.invalid & EXTERNAL:
            return ("external", self.internal.get(b"EXTSNAP", b""))
        if self.thin and b"SNAP" in self.internal:
            return self.link(b"SNAP")
        return None

    def link(self, name):
        """The blob id in an internal xattr."""
        value = self.internal[name]
        self._require(len(value) == 8, "%s has %d bytes" % (name.decode(), len(value)))
        return struct.unpack("<Q", value)[0]

    def _require(self, holds, what):
        if not holds:
            raise CannotOpen("blob 0x%x: %s" % (self.id, what))

    def _chain(self):
        current, seen = self.index, []
        while current != NONE:
            self._require(current < self.image.md_len and current not in seen, "its chain leads to page %d" % current)
            page = self.image.page(current)
            self._require(page.whole, "page %d has a wrong crc" % current)
            self._require(page.seq == len(seen) and page.id == self.id, "page %d is not of its chain" % current)
            self._require(current in self.masks.pages, "page %d is not marked as used" % current)
            seen.append(current)
            yield page
            current = page.next

    def _descriptor(self, kind, payload):
        self._require(payload is not None and kind != 6, "a descriptor that does not belong there")
        if kind == 3:
            self._require(len(payload) == 24, "flags of %d bytes" % len(payload))
            self.invalid, self.data_ro, self.md_ro = struct.unpack("<QQQ", payload)
            self._require(not self.invalid & ~KNOWN_INVALID, "unknown flags 0x%x" % self.invalid)
        elif kind in (2, 4):
            self._require(len(payload) >= 4, "an xattr without lengths")
            name, value = struct.unpack_from("<HH", payload)
            self._require(len(payload) == 4 + name + value, "an xattr whose lengths do not add up")
            key = payload[4 : 4 + name].split(b"\0")[0]
            (self.xattrs if kind == 2 else self.internal).setdefault(key, payload[4 + name :])
        elif kind == 1:
            self._runs(payload)
        elif kind == 5:
            self._extent_table(payload)

    def _runs(self, payload):
        self._require(self._table is None and payload and len(payload) % 8 == 0, "a bad run-length list")
        self._has_runs = True
        for first, length in struct.iter_unpack("<II", payload):
            self._require(len(self.map) + length <= 1 << 26, "a size beyond reason")
            self._require(first or self.thin or not length, "missing clusters although it is not thin")
            clusters = range(first, first + length) if first else [0] * length
            self._mapped(clusters)
        self._require(self.map, "a run-length list of no clusters")

    def _extent_table(self, payload):
        self._require(not self._has_runs and len(payload) >= 8 and len(payload) % 8 == 0, "a bad extent table")
        (size,) = struct.unpack_from("<Q", payload)
        self._require(self._size in (None, size), "extent tables of two sizes")
        self._size, self._table = size, self._table or []
        for page, count in struct.iter_unpack("<II", payload[8:]):
            self._require(page == 0 or count == 1, "an extent page counted %d times" % count)
            self._require(page != 0 or self.thin, "a missing extent page although it is not thin")
            self._require(len(self._table) + count <= -(-size // SLOT), "more slots than clusters")
            self._table.extend([page] * count)

    def _read_extents(self):
        self._require(len(self._table) == -(-self._size // SLOT), "slots that do not add up")
        self._require(self._size <= 1 << 26, "a size beyond reason")
        for page in self._table:
            left = self._size - len(self.map)
            if page == 0:
                self.map.extend([0] * min(SLOT, left))
                continue
            self._require(page < self.image.md_len, "extent page %d" % page)
            extent = self.image.page(page)
            self._require(extent.is_extent_page() and extent.next == NONE, "page %d is no extent page" % page)
            payload = next(payload for _, payload in extent.descriptors())
            self._require(len(payload) > 4 and len(payload) % 4 == 0, "extent page %d is malformed" % page)
            (start,) = struct.unpack_from("<I", payload)
            self._require(start == len(self.map), "extent page %d begins at %d" % (page, start))
            clusters = [c for (c,) in struct.iter_unpack("<I", payload[4:])]
            self._require(len(clusters) <= left, "extent page %d has too many clusters" % page)
            self._require(self.thin or all(clusters), "missing clusters although it is not thin")
            self._mapped(clusters)

    def _mapped(self, clusters):
        for cluster in clusters:
            self._require(cluster == 0 or cluster in self.masks.clusters, "cluster %d is not marked as used" % cluster)
            self.map.append(cluster)
