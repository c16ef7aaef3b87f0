// Pods of containerd whose handler is runphi, through CRI as the kubelet speaks it: cells and ordinary containers, their
// states, logs, statistics, ends, and that nothing is left. What runs is started by tests/clients/cri.sh.
import { connectImages, connectRuntime, getFromPhid } from "./client.js";
import { between, count, eventually, refused, same, works } from "./check.js";
import * as host from "./host.js";
import fs from "node:fs";

// Where the rig's containerd, phid and runphi are, and a file with every call of the runtime.
const { CRI_SOCKET, PHID_SOCKET, RUNPHI_STATE, BUNDLES, CALLS, LOGS } = process.env;
const cri = connectRuntime(CRI_SOCKET);
const images = connectImages(CRI_SOCKET);

const phid = (path) => getFromPhid(PHID_SOCKET, path);
const records = async () => (await phid("/v1/containers?limit=1000")).items;
const record = async (id) => (await records()).find((c) => c.oci?.id === id);
const ownedCpus = async () => (await phid("/v1/allocations")).cpus.filter((c) => c.owner !== null);
const status = async (id) => (await cri.ContainerStatus({ container_id: id })).status;
const state = async (id) => (await status(id)).state;
const pidOf = async (id) => JSON.parse((await cri.ContainerStatus({ container_id: id, verbose: true })).info.info).pid;
const podState = async (id) => (await cri.PodSandboxStatus({ pod_sandbox_id: id })).status.state;
const bundle = (id) => JSON.parse(host.read(`${BUNDLES}/${id}/config.json`));
// What the runtime was told to do with a container, as "kill 15".
const calls = (id) => host.read(CALLS).split("\n").filter((line) => line.includes(id))
  .map((line) => line.replace(/^.*--log-format json /, "").replace(` ${id}`, ""));
// Where the runtime was told to keep its state.
const runcRoot = () => /^--root (\S+)/.exec(host.read(CALLS))[1];

// The pid namespace: CONTAINER is the kubelet's default, POD the one that its pods can share.
function podConfig(name, pid, annotations = {}) {
  const namespace_options = { network: "NODE", pid, ipc: "POD" };
  return {
    metadata: { name, uid: `uid-${name}`, namespace: "default", attempt: 0 },
    log_directory: `${LOGS}/${name}`, annotations, linux: { security_context: { namespace_options } },
  };
}
async function runPod(config) {
  fs.mkdirSync(config.log_directory, { recursive: true });
  const { pod_sandbox_id } = await cri.RunPodSandbox({ config, runtime_handler: "runphi" });
  return { id: pod_sandbox_id, config };
}
async function create(pod, name, image, more = {}, resources = undefined) {
  const { container_id } = await cri.CreateContainer({
    pod_sandbox_id: pod.id, sandbox_config: pod.config,
    config: {
      metadata: { name, attempt: 0 }, image: { image: `localhost/${image}:latest` }, log_path: `${name}.log`,
      linux: { ...pod.config.linux, resources }, ...more,
    },
  });
  return { id: container_id, log: `${pod.config.log_directory}/${name}.log` };
}
const start = (container) => cri.StartContainer({ container_id: container.id });
const stop = (container, timeout) => cri.StopContainer({ container_id: container.id, timeout });
const exec = (container, cmd) => cri.ExecSync({ container_id: container.id, cmd, timeout: 60 });
const says = (container, line) => eventually(`"${line}" in ${container.log}`, () => host.logged(container.log).includes(line));
const lastCount = (container) => Number(host.logged(container.log).findLast((line) => line.startsWith("count "))?.slice(6) ?? 0);
const countsOn = (container, from) => eventually("it counts on", () => lastCount(container) > from + 3);

const POD_ANNOTATIONS = { "org.runphi.criticality": "high", "org.runphi.container.cell.memory": "24M", "example.com/unlisted": "1" };
const OWN_ANNOTATIONS = { "org.runphi.labels": '{"line":"3"}' };
// What the kubelet gives every container: limits of the pod's, and files that a cell does without.
const LIMITS = { cpu_shares: 2048, cpu_quota: 200000, cpu_period: 100000, cpuset_cpus: "" };
const mounts = ["/etc/hosts", "/dev/termination-log", "/var/run/secrets/kubernetes.io/serviceaccount"].map((container_path) =>
  ({ container_path, host_path: container_path === "/etc/hosts" ? "/etc/hosts" : LOGS, readonly: true }));

async function pods() {
  const version = await cri.Version({});
  same("it is containerd, and speaks v1", ["containerd", "v1"], [version.runtime_name, version.runtime_api_version]);
  for (const name of ["counts", "exit5", "busybox"])
    await eventually(`the image ${name}`, async () => (await images.ImageStatus({ image: { image: `localhost/${name}:latest` } })).image);
  await refused("a handler that nobody configured is refused", /no runtime for "nobody"/,
    cri.RunPodSandbox({ config: podConfig("nobody", "CONTAINER"), runtime_handler: "nobody" }));

  const pod = await runPod(podConfig("first", "CONTAINER", POD_ANNOTATIONS));
  same("a pod of the handler runphi is ready", "SANDBOX_READY", await podState(pod.id));
  same("its sandbox is no cell", [[], []], [await records(), host.tree(RUNPHI_STATE)]);
  same("it was forwarded to runc, whose state has it", true, host.exists(`${runcRoot()}/${pod.id}/state.json`));
  return pod;
}

async function containers(pod) {
  const cell = await create(pod, "cell", "counts", { annotations: OWN_ANNOTATIONS, mounts }, LIMITS);
  same("created; containerd calls the runtime when it starts it", ["CONTAINER_CREATED", []], [await state(cell.id), calls(cell.id)]);
  await start(cell);
  same("started, a container of an image with /boot/config.json is a cell", ["CONTAINER_RUNNING", "running"],
    [await state(cell.id), (await record(cell.id))?.state]);

  const plain = await create(pod, "plain", "busybox",
    { command: ["/bin/sh", "-c", 'trap "exit 7" TERM; echo plain here; while :; do sleep 1 & wait $!; done'] });
  await start(plain);
  await says(plain, "plain here");
  same("an ordinary container runs beside it", "CONTAINER_RUNNING", await state(plain.id));
  same("phid knows the cell alone", [cell.id], (await records()).map((c) => c.oci.id));
  const { containers: listed } = await cri.ListContainers({ filter: { pod_sandbox_id: pod.id } });
  same("both are in the pod's list", [["cell", "CONTAINER_RUNNING"], ["plain", "CONTAINER_RUNNING"]],
    listed.map((c) => [c.metadata.name, c.state]).sort());
  return { cell, plain };
}

async function annotations(pod, { cell, plain }) {
  const { spec, annotations } = await record(cell.id);
  const own = (a) => Object.fromEntries(Object.entries(a).filter(([key]) => !key.startsWith("io.kubernetes.")));
  const { "example.com/unlisted": _, ...listed } = POD_ANNOTATIONS;
  same("the pod's annotations reach the sandbox's bundle, those that are listed", listed, own(bundle(pod.id).annotations));
  same("and the ordinary container's", listed, own(bundle(plain.id).annotations));
  same("and the cell's, with its own", { ...listed, ...OWN_ANNOTATIONS }, own(bundle(cell.id).annotations));
  same("phid has them", { ...listed, ...OWN_ANNOTATIONS }, own(annotations));
  same("and did what they say", ["high", [24 << 20], { line: "3" }], [spec.criticality, spec.memory.map((m) => m.size), spec.labels]);
  same("the pod's limits give a cell no CPUs beside those that its image asks for", 1, (await ownedCpus()).length);
}

// A cell that cannot be made: CRI's client hears why, and nothing is left of it.
async function refusals(pod) {
  const wrong = [
    ["an annotation that phid does not know", { annotations: { "org.runphi.colour": "red" } }, /phid knows no annotation org\.runphi\.colour/],
    ["a volume of the host's", { mounts: [{ container_path: "/data", host_path: LOGS }] }, /nothing can be mounted at \/data: a cell sees no files/],
  ];
  for (const [name, more, words] of wrong) {
    const before = [await records(), host.tree(RUNPHI_STATE)];
    const cell = await create(pod, "wrong", "counts", more);
    await refused(`${name} is refused, in words`, words, start(cell));
    const { state, reason, message } = await status(cell.id);
    same("which its status has as well", ["CONTAINER_EXITED", "StartError", true], [state, reason, words.test(message)]);
    await cri.RemoveContainer({ container_id: cell.id });
    same("nothing is left of it", [before, []], [[await records(), host.tree(RUNPHI_STATE)], host.cgroupsNamed(cell.id)]);
  }
}

async function logs({ cell }) {
  await countsOn(cell, 0);
  const lines = host.logged(cell.log);
  same("the log has the guest's lines in CRI's form, from the first on",
    ["phid-guest: ready", "a cell of a pod", "count 1", "count 2", "count 3"], lines.slice(0, 5));
  const counts = lines.slice(2).map((line) => Number(line.slice(6)));
  same("and none is missing", counts.map((_, i) => i + 1), counts);
}

const SLACK_NS = 100_000_000; // what /proc rounds, and what a process used before it came into its cgroup

async function statistics({ cell, plain }) {
  const pid = await pidOf(cell.id), plainPid = await pidOf(plain.id);
  const { keeper, cell: { pid: qemu } } = await record(cell.id);
  same("the cell's pid is the keeper's", keeper.pid, pid);
  same("its cgroup is the container's", `/k8s.io/${cell.id}`, host.cgroupPath(pid));
  same("with the keeper and QEMU in it, and nothing else", [[pid, qemu].sort((a, b) => a - b), true],
    [host.cgroupPids(pid), host.isQemu(qemu)]);
  for (const [name, id, main, all] of [["the cell", cell.id, qemu, [pid, qemu]], ["the ordinary container", plain.id, plainPid, [plainPid]]]) {
    const before = host.cpuTimeNs([main]);
    const { cpu, memory } = (await cri.ContainerStats({ container_id: id })).stats;
    between(`statistics of ${name}: the CPU time of its own processes`, Math.max(1, before - SLACK_NS),
      cpu.usage_core_nano_seconds.value, host.cpuTimeNs(all) + SLACK_NS);
    between(`statistics of ${name}: no more memory than its own cgroup had`, 4096, memory.working_set_bytes.value, host.memoryPeak(main));
  }
}

async function execs({ cell, plain }) {
  await refused("a cell refuses exec, with a sentence", /exec: not supported for cells: \S+ is a partition with a system of its own/,
    exec(cell, ["/bin/true"]));
  same("which does it no harm", "CONTAINER_RUNNING", await state(cell.id));
  const { stdout, stderr, exit_code } = await exec(plain, ["/bin/sh", "-c", "echo out; echo err >&2; exit 3"]);
  same("exec in the ordinary container", ["out\n", "err\n", 3], [stdout.toString(), stderr.toString(), exit_code]);
}

async function updates({ cell, plain }) {
  const { cpus: owned, pid } = (await record(cell.id)).cell;
  const other = (await phid("/v1/allocations")).cpus.map((c) => c.id).find((id) => !owned.includes(id)) ?? owned[0];
  const wanted = { shares: 512, quota: 50000, period: 100000, cpus: String(other) };
  const linux = { cpu_shares: wanted.shares, cpu_quota: wanted.quota, cpu_period: wanted.period, cpuset_cpus: wanted.cpus };
  const update = (container, linux) => cri.UpdateContainerResources({ container_id: container.id, linux });
  const seen = async () => [await record(cell.id), await phid("/v1/allocations"), host.affinities(pid), host.limits(pid)];
  const before = await seen();
  await works("an update of a cell's shares, quota and cpuset is answered with ok", update(cell, linux));
  await works("and of its memory to what it has", update(cell, { memory_limit_in_bytes: 24 << 20 }));
  await refused("another memory is refused, in words", /the memory of a cell does not change while it exists: it has 25165824 bytes/,
    update(cell, { memory_limit_in_bytes: 48 << 20 }));
  same("nothing has changed: not its record, who owns what, its threads' CPUs, its cgroup", before, await seen());
  await countsOn(cell, lastCount(cell));
  same("the guest runs on", "CONTAINER_RUNNING", await state(cell.id));
  await works("an ordinary container's is answered with ok", update(plain, linux));
  same("and done", host.limitsOf(wanted), host.limits(await pidOf(plain.id)));
}

async function stops(pod, { cell, plain }) {
  const TIMEOUT_S = 2, from = lastCount(cell), begun = performance.now();
  await stop(cell, TIMEOUT_S);
  between("a guest that cannot hear SIGTERM has the whole timeout", TIMEOUT_S * 1000, performance.now() - begun, Infinity);
  same("SIGTERM, then SIGKILL", ["kill 15", "kill 9"], calls(cell.id).filter((call) => call.startsWith("kill ")).slice(0, 2));
  between("it counted on until then", from + 1, lastCount(cell), Infinity);
  let { state, exit_code, reason } = await status(cell.id);
  same("its exit code says SIGKILL", ["CONTAINER_EXITED", 137, "Error"], [state, exit_code, reason]);
  same("phid's record went with the task", undefined, await record(cell.id));
  await works("to stop it once more is no error", stop(cell, TIMEOUT_S));

  await stop(plain, 100);
  ({ state, exit_code } = await status(plain.id));
  same("the ordinary one heard SIGTERM", ["CONTAINER_EXITED", 7], [state, exit_code]);
  for (const container of [cell, plain]) await cri.RemoveContainer({ container_id: container.id });
  same("both are removed", [], (await cri.ListContainers({ filter: { pod_sandbox_id: pod.id } })).containers);
  same("and nothing of them is left", [[], [], [], []],
    [host.tree(RUNPHI_STATE), host.cgroupsNamed(cell.id), host.cgroupsNamed(plain.id), host.list(BUNDLES).filter((id) => id !== pod.id)]);
  await refused("a removed one is not found", /NOT_FOUND/, status(cell.id));
}

async function ends(pod) {
  const cell = await create(pod, "ends", "exit5");
  await start(cell);
  await eventually("the cell ends by itself", async () => await state(cell.id) === "CONTAINER_EXITED");
  const { exit_code, reason, created_at, finished_at } = await status(cell.id);
  same("a cell that ends by itself: its exit code", [5, "Error"], [exit_code, reason]);
  // Not started_at: containerd takes it when start has answered, and this guest may have ended by then.
  between("it ended after it was created", created_at, finished_at, Date.now() * 1e6);
  same("its last words are in the log", ["phid-guest: ready", "last words"], host.logged(cell.log));
  await cri.RemoveContainer({ container_id: cell.id });
  await eventually("its record goes", async () => await record(cell.id) === undefined);
}

async function podEnds(pod, other) {
  const cell = await create(other, "left", "counts");
  await start(cell);
  await says(cell, "count 3");
  same("a cell in a pod with one pid namespace", "CONTAINER_RUNNING", await state(cell.id));
  await create(other, "unstarted", "counts");
  await cri.StopPodSandbox({ pod_sandbox_id: other.id });
  same("StopPodSandbox ends what runs in it", ["CONTAINER_EXITED", 137], [(await status(cell.id)).state, (await status(cell.id)).exit_code]);
  for (const { id } of [pod, other]) {
    await cri.StopPodSandbox({ pod_sandbox_id: id });
    same("a stopped pod is not ready", "SANDBOX_NOTREADY", await podState(id));
    await cri.RemovePodSandbox({ pod_sandbox_id: id });
    await works("to remove it once more is no error", cri.RemovePodSandbox({ pod_sandbox_id: id }));
  }
}

async function nothingLeft() {
  same("no pod and no container is left in containerd", [[], []], [(await cri.ListPodSandbox({})).items, (await cri.ListContainers({})).containers]);
  same("no container in phid, no CPU owned", [[], []], [await records(), await ownedCpus()]);
  same("nothing in runphi's directory, no bundle", [[], []], [host.tree(RUNPHI_STATE), host.list(BUNDLES)]);
}

try {
  const first = await pods();
  const both = await containers(first);
  await annotations(first, both);
  await refusals(first);
  await logs(both);
  await statistics(both);
  await execs(both);
  await updates(both);
  await stops(first, both);
  const second = await runPod(podConfig("second", "POD", { "org.runphi.runtime": "runphi" }));
  same("a sandbox is forwarded though its pod's annotation says runphi", [[], true],
    [await records(), host.exists(`${runcRoot()}/${second.id}/state.json`)]);
  await ends(second);
  await podEnds(first, second);
  await nothingLeft();
} catch (error) {
  count.failed++;
  console.log(`FAIL the test came to its end: ${error.stack}`);
}
cri.close();
images.close();
console.log(`${count.passed} passed, ${count.failed} failed`);
process.exitCode = count.failed === 0 ? 0 : 1;
