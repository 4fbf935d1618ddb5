// @ts-check
/** A resource ID, alone or in the line that the tenant's script prints (`ConnectTo-TenantVm -ResourceID /subscriptions/...`). */

// As eva/resource_id.py has it; nothing of a longer path may follow.
const RESOURCE_ID = new RegExp(
  "/subscriptions/([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})" +
    "/resourceGroups/([a-z0-9_().-]{0,89}[a-z0-9_()-])" +
    "/providers/Microsoft\\.Compute/virtualMachines/([a-z0-9](?:[a-z0-9_.-]{0,62}[a-z0-9_])?)(?![a-z0-9_/-])",
  "i",
);
const MAX_LINE = 2048;

/** @typedef {{id: string, subscription: string, group: string, vm: string}} ResourceId */

/** The resource ID in a line; null where there is none. @param {string} line @returns {ResourceId | null} */
export function findResourceId(line) {
  const [id, subscription, group, vm] = RESOURCE_ID.exec(line.slice(0, MAX_LINE)) ?? [];
  return id && subscription && group && vm ? { id, subscription, group, vm } : null;
}

/** Whether two resource IDs are the same VM: case does not count. @param {string} one @param {string} other */
export function sameResource(one, other) {
  return one.toLowerCase() === other.toLowerCase();
}
