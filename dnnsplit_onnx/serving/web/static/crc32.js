/** Files are held against this where a page may not use SHA-256: by http, and not from this machine. */

/** CRC-32 as zlib has it, in hexadecimal. @param {Uint8Array} bytes */
export function crc32(bytes) {
  const table = Uint32Array.from({ length: 256 }, (_, n) => {
    for (let bit = 0; bit < 8; bit += 1) n = n & 1 ? (n >>> 1) ^ 0xedb88320 : n >>> 1;
    return n;
  });
  let crc = ~0;
  for (const byte of bytes) crc = (crc >>> 8) ^ table[(crc ^ byte) & 255];
  return (~crc >>> 0).toString(16).padStart(8, "0");
}
