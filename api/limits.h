/* Every bound on what a client, an image or a peer can send, in one place. */
#pragma once

#define PHI_ID_MAX            128 /* bytes of a container id (DESIGN §6) */
#define PHI_NAME_MAX          64
#define PHI_UUID_LEN          36
#define PHI_PATH_MAX          4095 /* PATH_MAX - 1 */
#define PHI_CMDLINE_MAX       2047 /* x86 boot protocol's usual COMMAND_LINE_SIZE - 1 */
#define PHI_KEY_MAX           128  /* Idempotency-Key */
#define PHI_LABELS_MAX        64
#define PHI_LABEL_VALUE_MAX   4096
#define PHI_CPUS_MAX          4096 /* highest CPU id + 1 */
#define PHI_MEMORY_REGIONS_MAX 16
#define PHI_POOLS_MAX         64
#define PHI_DEVICES_MAX       16  /* of one container */
#define PHI_PLATFORM_DEVICES_MAX 256
#define PHI_DEVICE_PARTS_MAX  16  /* register ranges, or interrupts, of one device */
#define PHI_VIRTUAL_IRQS_MAX  64
#define PHI_REMOTE_MAX        16  /* remote processors of a host */
#define PHI_LINKS_MAX         8   /* of one container */
#define PHI_LINK_PEERS_MAX    8
#define PHI_SLOTS             32  /* devices of a PCI bus: ends of links in a cell, and links of a host */
#define PHI_SPI_MAX           987 /* INTID 1019 (GIC architecture, 2.2.1) */
#define PHI_BODY_MAX          (1u << 20) /* bytes of a request body */
#define PHI_BUNDLE_CONFIG_MAX (4u << 20) /* bytes of a bundle's config.json or an image's boot configuration */
#define PHI_PLATFORM_MAX      (4u << 20)
#define PHI_IMAGE_MAX         (512ull << 20) /* bytes of a kernel, initrd, ... */
#define PHI_JSON_DEPTH_MAX    32
#define PHI_JSON_MEMBERS_MAX  1024 /* members of one object */
#define PHI_ADDRESS_MAX       (1ull << 62)
#define PHI_LOG_DEFAULT       (256u << 10)
#define PHI_LOG_MIN           (4u << 10)
#define PHI_LOG_MAX           (64u << 20)
#define PHI_WAIT_MAX_S        60
#define PHI_PAGE_MAX          1000 /* items of a list answer */
#define PHI_CONTAINERS_MAX    16384
