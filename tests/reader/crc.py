"""CRC-32C as docs/format.md section 4 gives it, eight bytes at a time by table."""


def _tables():
    first = []
    for byte in range(256):
        c = byte
        for _ in range(8):
            c = (c >> 1) ^ (0x82F63B78 if c & 1 else 0)
        first.append(c)
    tables = [first]
    for _ in range(7):
        last = tables[-1]
        tables.append([(c >> 8) ^ first[c & 0xFF] for c in last])
    return tables


_T = _tables()


def crc32c(data):
    """The CRC of `data`."""
    t0, t1, t2, t3, t4, t5, t6, t7 = _T
    c = 0xFFFFFFFF
    end = len(data) & ~7
    for i in range(0, end, 8):
        low = c ^ int.from_bytes(data[i : i + 4], "little")
        high = int.from_bytes(data[i + 4 : i + 8], "little")
        c = (
            t7[low & 0xFF] ^ t6[low >> 8 & 0xFF] ^ t5[low >> 16 & 0xFF] ^ t4[low >> 24]
            ^ t3[high & 0xFF] ^ t2[high >> 8 & 0xFF] ^ t1[high >> 16 & 0xFF] ^ t0[high >> 24]
        )
    for byte in data[end:]:
        c = (c >> 8) ^ t0[(c ^ byte) & 0xFF]
    return c ^ 0xFFFFFFFF
