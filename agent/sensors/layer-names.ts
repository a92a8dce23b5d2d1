/** Layers that tell of processes, best first: the setting `sensors` names the best that may be taken. */
export const PROCESS_LAYERS = ['ebpf', 'audit', 'ebpf-core', 'proc-connector', 'polling'] as const
export type ProcessLayerName = (typeof PROCESS_LAYERS)[number]
