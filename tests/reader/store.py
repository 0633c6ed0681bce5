"""A whole store as SPDK would have it after a load: blobs, half-made states resolved, contents."""

import hashlib

import masks
from blob import Blob, CannotOpen
from image import ROOT, Image, Refused


class Store:
    """The judge of section 21: raises Refused where SPDK's loader would."""

    def __init__(self, data, external=None):
        self.image = Image(data)
        self.external = external or {}
        self.masks = masks.load(self.image)
        self.blobs, self.unopened, self.resolved = {}, {}, []
        for index in sorted(self.masks.ids):
            try:
                self.blobs[ROOT + index] = Blob(self.image, self.masks, index)
            except CannotOpen as why:
                self.unopened[ROOT + index] = str(why)
        self._resolve()
        self._drop_orphans()

    def _resolve(self):
        """Half-made snapshots (section 18)."""
        for blob in list(self.blobs.values()):
            marker = next((name for name in (b"SNAPRM", b"SNAPTMP") if name in blob.internal), None)
            if marker is None:
                continue
            try:
                other = self.blobs.get(blob.link(marker))
            except CannotOpen as why:
                raise Refused(str(why))
            if other is None:
                continue
            if other.parent() == blob.id:
                self.resolved.append((blob.id, "kept"))
                blob.internal.pop(b"SNAPRM", None)
                blob.internal.pop(b"SNAPTMP", None)
                blob.data_ro |= 1
            elif any(child.parent() == blob.id for child in self.blobs.values()):
                raise Refused("blob 0x%x is half made, and has clones that its marker does not name" % blob.id)
            else:
                self.resolved.append((blob.id, "dropped"))
                del self.blobs[blob.id]

    def _drop_orphans(self):
        """Clones whose parents cannot be opened cannot be opened either."""
        for blob_id in list(self.blobs):
            seen, at = set(), blob_id
            while at is not None and not isinstance(at, tuple):
                if at in seen:
                    raise Refused("the parents of blob 0x%x go in a circle" % blob_id)
                seen.add(at)
                if at not in self.blobs:
                    self.unopened[blob_id] = "its parent 0x%x cannot be opened" % at
                    break
                at = self.blobs[at].parent()
        for blob_id in self.unopened:
            self.blobs.pop(blob_id, None)

    def cluster(self, blob, number):
        """The bytes of one cluster through the chain (section 13); None for zeroes."""
        size = self.image.cluster_size
        while True:
            if number >= len(blob.map):
                return None
            if blob.map[number]:
                at = blob.map[number] * size
                return self.image.data[at : at + size]
            parent = blob.parent()
            if parent is None:
                return None
            if isinstance(parent, tuple):
                source = self.external.get(parent[1].rstrip(b"\0").decode("utf-8", "replace"))
                if source is None:
                    raise CannotOpen("blob 0x%x stands on an external snapshot that was not given" % blob.id)
                piece = source[number * size : (number + 1) * size]
                return piece + bytes(size - len(piece))
            blob = self.blobs[parent]

    def sha256(self, blob):
        """The hash of the whole content."""
        digest, zeroes = hashlib.sha256(), bytes(self.image.cluster_size)
        for number in range(len(blob.map)):
            digest.update(self.cluster(blob, number) or zeroes)
        return digest.hexdigest()

    def describe(self):
        """The store as plain values, for JSON."""
        image = self.image
        return {
            "accepted": True,
            "clean": image.is_clean(),
            "cluster_size": image.cluster_size,
            "data_clusters": image.total_clusters - image.metadata_clusters,
            "free_clusters": image.total_clusters - len(self.masks.clusters),
            "super_blob": image.super_blob if image.super_blob != (1 << 64) - 1 else None,
            "unopened": {str(blob_id): why for blob_id, why in self.unopened.items()},
            "resolved": [{"id": blob_id, "outcome": outcome} for blob_id, outcome in self.resolved],
            "findings": self.findings(),
            "blobs": [self._describe_blob(blob) for blob in self.blobs.values()],
        }

    def _describe_blob(self, blob):
        parent = blob.parent()
        if isinstance(parent, tuple):
            parent = {"external": parent[1].rstrip(b"\0").decode("utf-8", "replace")}
        try:
            content = self.sha256(blob)
        except CannotOpen as why:
            content = str(why)
        return {
            "id": blob.id,
            "size": len(blob.map) * self.image.cluster_size,
            "clusters": len(blob.map),
            "allocated_clusters": sum(1 for cluster in blob.map if cluster),
            "thin": blob.thin,
            "read_only": blob.read_only,
            "parent": parent,
            "xattrs": {name.decode("latin-1"): value.hex() for name, value in blob.xattrs.items()},
            "sha256": content,
        }

    def findings(self):
        """What is wrong although the store loads: two owners, and leaks of a clean store (section 22)."""
        owners, found = {}, []
        for blob in self.blobs.values():
            for number, cluster in enumerate(blob.map):
                if cluster and owners.setdefault(cluster, blob.id) != blob.id:
                    found.append("cluster %d belongs to blobs 0x%x and 0x%x" % (cluster, owners[cluster], blob.id))
        if self.image.is_clean() and not self.unopened:
            needed = set(owners) | set(range(self.image.metadata_clusters))
            found.extend("cluster %d is leaked" % cluster for cluster in sorted(self.masks.clusters - needed))
        return found
