// The seccomp filter: the system calls that a sandboxed program may not make, as a program for the kernel's BPF
// machine.
//
// Namespaces and limits already confine the program. The filter also keeps it away from parts of the kernel that no
// such program needs and where holes have been found, and from memory that no limit counts (memfd, System V segments,
// message queues).
#include "sandbox.h"
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>

#if defined __x86_64__
#define THIS_MACHINE AUDIT_ARCH_X86_64
#define FOREIGN_CALL 0x40000000 // the x32 calls begin here
#elif defined __aarch64__
#define THIS_MACHINE AUDIT_ARCH_AARCH64
#endif

#define SEE(field)            ((uint32_t)offsetof(struct seccomp_data, field))
#define LOAD(field)           ((struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, SEE(field)))
#define RETURN(value)         ((struct sock_filter)BPF_STMT(BPF_RET | BPF_K, value))
#define REFUSE(error)         RETURN(SECCOMP_RET_ERRNO | (error))
#define SKIP_UNLESS(v)        ((struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)(v), 0, 1))
#define SKIP_UNLESS_ANY(bits) ((struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, (uint32_t)(bits), 0, 1))
#define SKIP_IF_ANY(bits)     ((struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, (uint32_t)(bits), 1, 0))
#define NEW_NAMESPACES                                                                                                 \
    (CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET)

static const int refused[] = {
    // other processes' memory and state
    SYS_ptrace,
    SYS_process_vm_readv,
    SYS_process_vm_writev,
    SYS_kcmp,
    SYS_perf_event_open,
    SYS_pidfd_open,
    // file systems and namespaces
    SYS_mount,
    SYS_umount2,
    SYS_pivot_root,
    SYS_chroot,
    SYS_unshare,
    SYS_setns,
    SYS_name_to_handle_at,
    SYS_open_by_handle_at,
    SYS_quotactl,
    SYS_swapon,
    SYS_swapoff,
    SYS_fanotify_init,
    // the kernel and the machine
    SYS_bpf,
    SYS_init_module,
    SYS_finit_module,
    SYS_delete_module,
    SYS_kexec_load,
    SYS_reboot,
    SYS_syslog,
    SYS_acct,
    SYS_settimeofday,
    SYS_clock_settime,
    SYS_adjtimex,
    SYS_clock_adjtime,
    SYS_sethostname,
    SYS_setdomainname,
    SYS_personality,
    SYS_vhangup,
    SYS_userfaultfd,
    SYS_add_key,
    SYS_request_key,
    SYS_keyctl,
    SYS_lookup_dcookie,
    // networks; a pair of connected sockets is allowed
    SYS_socket,
    // memory outside of the limits
    SYS_memfd_create,
    SYS_shmget,
    SYS_shmat,
    SYS_msgget,
    SYS_semget,
    SYS_mq_open,
    SYS_io_setup,
    SYS_mlock,
    SYS_mlockall,
    SYS_mlock2,
    SYS_move_pages,
    SYS_migrate_pages,
    SYS_mbind,
    SYS_set_mempolicy,
#ifdef __x86_64__
    SYS_iopl,
    SYS_ioperm,
    SYS_modify_ldt,
    SYS_uselib,
    SYS__sysctl,
    SYS_kexec_file_load,
#endif
#ifdef SYS_io_uring_setup
    SYS_io_uring_setup,
    SYS_io_uring_enter,
    SYS_io_uring_register,
#endif
#ifdef SYS_fsopen
    SYS_open_tree,
    SYS_move_mount,
    SYS_fsopen,
    SYS_fsconfig,
    SYS_fsmount,
    SYS_fspick,
#endif
#ifdef SYS_pidfd_getfd
    SYS_pidfd_getfd,
#endif
#ifdef SYS_process_madvise
    SYS_process_madvise,
#endif
#ifdef SYS_mount_setattr
    SYS_mount_setattr,
#endif
#ifdef SYS_memfd_secret
    SYS_memfd_secret,
#endif
};
#define REFUSED (sizeof refused / sizeof *refused)

size_t seccomp_program(bool processes, struct sock_filter *out) {
    size_t n = 0;
#ifdef THIS_MACHINE
    out[n++] = LOAD(arch);
    out[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, THIS_MACHINE, 1, 0);
    out[n++] = RETURN(SECCOMP_RET_KILL_PROCESS);
#endif
    out[n++] = LOAD(nr);
#ifdef FOREIGN_CALL
    out[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, FOREIGN_CALL, 0, 1);
    out[n++] = RETURN(SECCOMP_RET_KILL_PROCESS);
#endif
    for (size_t i = 0; i < REFUSED; i++) {
        out[n++] = SKIP_UNLESS(refused[i]);
        out[n++] = REFUSE(EPERM);
    }
#ifdef SYS_clone3 // its flags lie in memory, where no filter sees them: the C library falls back to clone
    out[n++] = SKIP_UNLESS(SYS_clone3);
    out[n++] = REFUSE(ENOSYS);
#endif
#ifdef SYS_fork
    for (int i = 0; i < 2 && !processes; i++) {
        out[n++] = SKIP_UNLESS(i ? SYS_vfork : SYS_fork);
        out[n++] = REFUSE(EPERM);
    }
#endif
    // Terminal input must not be forged.
    out[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_ioctl, 0, 5);
    out[n++] = LOAD(args[1]);
    out[n++] = SKIP_UNLESS(TIOCSTI);
    out[n++] = REFUSE(EPERM);
    out[n++] = SKIP_UNLESS(TIOCLINUX);
    out[n++] = REFUSE(EPERM);
    out[n++] = LOAD(nr);
    out[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_clone, 0, processes ? 3 : 5);
    out[n++] = LOAD(args[0]);
    out[n++] = SKIP_UNLESS_ANY(NEW_NAMESPACES);
    out[n++] = REFUSE(EPERM);
    if (!processes) {
        out[n++] = SKIP_IF_ANY(CLONE_THREAD);
        out[n++] = REFUSE(EPERM);
    }
    out[n++] = RETURN(SECCOMP_RET_ALLOW);
    if (n > SECCOMP_MAX) die("the seccomp filter has %zu instructions", n);
    return n;
}
