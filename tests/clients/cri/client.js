// Speaks CRI with containerd and HTTP with phid. Owns the connections; knows nothing of what is tested.
import grpc from "@grpc/grpc-js";
import loader from "@grpc/proto-loader";
import http from "node:http";

const proto = loader.loadSync(new URL("runtime.proto", import.meta.url).pathname,
  { keepCase: true, longs: Number, enums: String, defaults: true });
const { RuntimeService, ImageService } = grpc.loadPackageDefinition(proto).runtime.v1;

const CALL_MS = 120_000; // a call that takes longer has failed

// An object with a function for each call of the service: request -> promise of the answer.
function connect(Service, socket) {
  const stub = new Service(`unix:${socket}`, grpc.credentials.createInsecure());
  const call = (name) => (request) => new Promise((resolve, reject) =>
    stub[name](request, { deadline: Date.now() + CALL_MS }, (error, answer) => error ? reject(error) : resolve(answer)));
  const calls = Object.fromEntries(Object.keys(Service.service).map((name) => [name, call(name)]));
  return { ...calls, close: () => stub.close() };
}
export const connectRuntime = (socket) => connect(RuntimeService, socket);
export const connectImages = (socket) => connect(ImageService, socket);

// The answer of phid to a GET; throws where it is no success.
export function getFromPhid(socketPath, path) {
  return new Promise((resolve, reject) => {
    http.get({ socketPath, path }, (answer) => {
      let text = "";
      answer.on("data", (part) => { text += part; });
      answer.on("end", () => answer.statusCode === 200 ? resolve(JSON.parse(text)) : reject(new Error(text)));
    }).on("error", reject);
  });
}
