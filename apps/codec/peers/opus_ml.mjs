// Packets on stdin, each behind its length (u16), to float32 at 48 kHz on stdout.
// node opus_ml.mjs PACKAGE/index.js lace|nolace
import { readFileSync, writeFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const { OpusMLDecoder } = await import(pathToFileURL(process.argv[2]));
const decoder = new OpusMLDecoder({
  channels: 1, streamCount: 1, coupledStreamCount: 0, channelMappingTable: [0],
  speechQualityEnhancement: process.argv[3],
});
await decoder.ready;
const data = readFileSync(0), packets = [];
for (let at = 0; at < data.length; ) {
  const size = data.readUInt16LE(at);
  packets.push(new Uint8Array(data.subarray(at + 2, at + 2 + size)));
  at += 2 + size;
}
const { channelData, errors } = decoder.decodeFrames(packets);
if (errors.length) throw new Error(errors[0].message);
writeFileSync(1, Buffer.from(channelData[0].slice().buffer));
