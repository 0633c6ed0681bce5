"""Which pages, blob ids and clusters are in use: by the masks (section 15) or by recovery (section 16)."""

import struct

from image import NONE, ROOT, Refused


class Masks:
    """Used metadata pages, used blob ids (root page indices), used clusters."""

    def __init__(self, pages, ids, clusters):
        self.pages, self.ids, self.clusters = pages, ids, clusters


def load(image):
    """The masks as SPDK has them after a load."""
    if image.is_clean():
        return Masks(
            image.mask(0, image.page_mask, image.page_mask_len, image.md_len),
            image.mask(2, image.id_mask, image.id_mask_len, image.md_len),
            image.mask(1, image.cluster_mask, image.cluster_mask_len, image.total_clusters, at_least=True),
        )
    return _Recovery(image).run()


class _Recovery:
    def __init__(self, image):
        self.image = image
        self.masks = Masks(set(), set(), set())
        self.references = 0
        self.pending = []

    def run(self):
        for index in range(self.image.md_len):
            if index not in self.masks.pages:
                self._follow(index)
        self.masks.clusters |= set(range(self.image.metadata_clusters))
        return self.masks

    def _follow(self, index):
        current, in_chain = index, False
        while True:
            page = self.image.page(current)
            if not page.whole:
                return
            if page.seq == 0 and page.id != ROOT + current or page.seq != 0 and not in_chain:
                return
            if current in self.masks.pages:
                raise Refused("metadata page %d is claimed twice" % current)
            if page.seq == 0 and page.is_extent_page():
                raise Refused("metadata page %d is an extent page that says it is a root" % current)
            self.masks.pages.add(current)
            if page.seq == 0:
                self.masks.ids.add(current)
            self._parse(page)
            if page.next == NONE:
                break
            current, in_chain = page.next, True
        for extent in self.pending:
            page = self.image.page(extent)
            if not page.is_extent_page():
                raise Refused("metadata page %d should be an extent page" % extent)
            self.masks.pages.add(extent)
            self._parse(page)
        self.pending = []

    def _parse(self, page):
        bad = Refused("metadata page %d: a descriptor that recovery refuses" % page.index)
        for kind, payload in page.descriptors():
            if payload is None or kind > 6:
                raise bad
            if kind == 1:
                runs = [struct.unpack_from("<II", payload, at) for at in range(0, len(payload) - 7, 8)]
                if sum(length for _, length in runs) == 0:
                    raise bad
                for first, length in runs:
                    if first:
                        self._use(range(first, first + length))
            elif kind == 5:
                if len(payload) < 8 or len(payload) % 8:
                    raise bad
                for at in range(8, len(payload), 8):
                    extent, count = struct.unpack_from("<II", payload, at)
                    if extent and count != 1:
                        raise bad
                    if extent:
                        self.pending.append(extent)
            elif kind == 6:
                if len(payload) <= 4 or len(payload) % 4:
                    raise bad
                self._use([c for (c,) in struct.iter_unpack("<I", payload[4:]) if c])

    def _use(self, clusters):
        self.references += len(clusters)
        if self.references > self.image.total_clusters:
            raise Refused("more references to clusters than there are clusters")
        self.masks.clusters |= {c for c in clusters if c < self.image.total_clusters}
