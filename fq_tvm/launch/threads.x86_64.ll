; Made of threads.c by `pytest tests/launch/test_threads_ir.py --update-golden`.
source_filename = "threads.c"
target datalayout = "e-m:e-p270:32:32-p271:32:32-p272:64:64-i64:64-i128:128-f80:128-n8:16:32:64-S128"
target triple = "x86_64-unknown-linux-gnu"

%struct.anon.1 = type { i64, [120 x i8], i32, i32, [120 x i8], ptr, ptr, i32, i32, i32, i32, i64, [88 x i8], i32, i32, i32, i32, i32, i64, i32, i32, [64 x i64], %struct.Debt, [80 x i8], [511 x %struct.Helper] }
%struct.Debt = type { i64 }
%struct.Helper = type { i32, i32, i32, %struct.cpu_set_t, i32, i32, [104 x i8] }
%struct.cpu_set_t = type { [16 x i64] }
%struct.Part = type { i64, i64, i64 }
%struct.timespec = type { i64, i64 }
%struct.Group = type { ptr, i32 }
%struct.TeamJob = type { ptr, ptr, ptr, i64, i32 }
%union.pthread_attr_t = type { i64, [48 x i8] }
%struct.__sigset_t = type { [16 x i64] }

@has_callers = internal unnamed_addr global i32 0, align 4
@callers = internal global i32 0, align 4
@settings.0 = internal unnamed_addr global i32 1, align 8
@settings.1 = internal unnamed_addr global i32 4, align 4
@settings.2 = internal unnamed_addr global i64 0, align 8
@openmp.0 = internal unnamed_addr global ptr null, align 8
@openmp.1 = internal unnamed_addr global ptr null, align 8
@openmp.2 = internal unnamed_addr global ptr null, align 8
@openmp.3 = internal unnamed_addr global ptr null, align 8
@openmp.4 = internal unnamed_addr global ptr null, align 8
@openmp.5 = internal unnamed_addr global i32 0, align 8
@pool = internal global %struct.anon.1 zeroinitializer, align 128
@launches = internal global [3 x i64] zeroinitializer, align 16
@__const.alone.group = private unnamed_addr constant { ptr, i32, [4 x i8] } { ptr null, i32 1, [4 x i8] zeroinitializer }, align 8
@.str = private unnamed_addr constant [13 x i8] c"RuntimeError\00", align 1
@.str.1 = private unnamed_addr constant [45 x i8] c"a share of a kernel failed in another thread\00", align 1
@__const.help.part = private unnamed_addr constant %struct.Part { i64 0, i64 1, i64 0 }, align 8

; Function Attrs: nounwind uwtable
define noundef i32 @__tvm_ffi_launcher(ptr nocapture noundef readnone %self, ptr nocapture noundef readnone %args, i32 noundef %count, ptr nocapture noundef writeonly initializes((0, 16)) %result) local_unnamed_addr #0 {
entry:
  %0 = load i32, ptr @has_callers, align 4
  %tobool.not = icmp eq i32 %0, 0
  br i1 %tobool.not, label %if.then, label %if.end

if.then:                                          ; preds = %entry
  %call = tail call i32 @pthread_key_create(ptr noundef nonnull @callers, ptr noundef nonnull @free) #11
  %tobool1.not = icmp eq i32 %call, 0
  %lnot.ext = zext i1 %tobool1.not to i32
  store i32 %lnot.ext, ptr @has_callers, align 4
  br label %if.end

if.end:                                           ; preds = %if.then, %entry
  store i32 1, ptr %result, align 8
  %padding.i = getelementptr inbounds nuw i8, ptr %result, i64 4
  store i32 0, ptr %padding.i, align 4
  %value1.i = getelementptr inbounds nuw i8, ptr %result, i64 8
  store i64 ptrtoint (ptr @launch to i64), ptr %value1.i, align 8
  ret i32 0
}

; Function Attrs: nounwind
declare i32 @pthread_key_create(ptr noundef, ptr noundef) local_unnamed_addr #1

; Function Attrs: mustprogress nounwind willreturn allockind("free") memory(argmem: readwrite, inaccessiblemem: readwrite)
declare void @free(ptr allocptr nocapture noundef) #2

; Function Attrs: nounwind uwtable
define internal i32 @launch(ptr noundef %f, ptr noundef %closure, i32 %tasks) #0 {
entry:
  %t.i100 = alloca %struct.timespec, align 8
  %t.i = alloca %struct.timespec, align 8
  %group.i97 = alloca %struct.Group, align 8
  %group.i = alloca %struct.Group, align 8
  %0 = load i32, ptr @has_callers, align 4
  %tobool.not.i = icmp eq i32 %0, 0
  br i1 %tobool.not.i, label %if.end, label %if.end.i

if.end.i:                                         ; preds = %entry
  %1 = load i32, ptr @callers, align 4
  %call.i = tail call ptr @pthread_getspecific(i32 noundef %1) #11
  %tobool1.not.i = icmp eq ptr %call.i, null
  br i1 %tobool1.not.i, label %lor.lhs.false.i, label %cond.end

lor.lhs.false.i:                                  ; preds = %if.end.i
  %call2.i = tail call noalias dereferenceable_or_null(40) ptr @calloc(i64 noundef 1, i64 noundef 40) #14
  %tobool3.not.i = icmp eq ptr %call2.i, null
  br i1 %tobool3.not.i, label %if.end, label %if.end5.i

if.end5.i:                                        ; preds = %lor.lhs.false.i
  store i32 3, ptr %call2.i, align 8
  %2 = load i32, ptr @callers, align 4
  %call6.i = tail call i32 @pthread_setspecific(i32 noundef %2, ptr noundef nonnull %call2.i) #11
  %tobool7.not.i = icmp eq i32 %call6.i, 0
  br i1 %tobool7.not.i, label %cond.end, label %if.end9.i

if.end9.i:                                        ; preds = %if.end5.i
  tail call void @free(ptr noundef nonnull %call2.i) #11
  br label %if.end

cond.end:                                         ; preds = %if.end.i, %if.end5.i
  %retval.1.i = phi ptr [ %call.i, %if.end.i ], [ %call2.i, %if.end5.i ]
  %3 = load i32, ptr %retval.1.i, align 8
  %cmp = icmp eq i32 %3, 0
  br i1 %cmp, label %if.then, label %if.end

if.then:                                          ; preds = %cond.end
  call void @llvm.lifetime.start.p0(i64 16, ptr nonnull %group.i) #11
  call void @llvm.memcpy.p0.p0.i64(ptr noundef nonnull align 8 dereferenceable(16) %group.i, ptr noundef nonnull align 8 dereferenceable(16) @__const.alone.group, i64 16, i1 false)
  %4 = atomicrmw add ptr @launches, i64 1 monotonic, align 16
  %call.i96 = call i32 %f(i32 noundef 0, ptr noundef nonnull %group.i, ptr noundef %closure) #11
  call void @llvm.lifetime.end.p0(i64 16, ptr nonnull %group.i) #11
  br label %cleanup57

if.end:                                           ; preds = %entry, %if.end9.i, %lor.lhs.false.i, %cond.end
  %cond114 = phi i32 [ %3, %cond.end ], [ 1, %lor.lhs.false.i ], [ 1, %if.end9.i ], [ 1, %entry ]
  %retval.1.i109113 = phi ptr [ %retval.1.i, %cond.end ], [ null, %lor.lhs.false.i ], [ null, %if.end9.i ], [ null, %entry ]
  %5 = load i32, ptr @settings.0, align 8
  %call3 = tail call i32 @getpid() #11
  %cmp4 = icmp ne i32 %cond114, 1
  %6 = load ptr, ptr @openmp.0, align 8
  %tobool5 = icmp ne ptr %6, null
  %or.cond = select i1 %cmp4, i1 %tobool5, i1 false
  %7 = load i32, ptr @openmp.5, align 8
  %cmp7 = icmp eq i32 %7, %call3
  %or.cond94 = select i1 %or.cond, i1 %cmp7, i1 false
  br i1 %or.cond94, label %if.then8, label %if.end54

if.then8:                                         ; preds = %if.end
  %8 = load ptr, ptr @openmp.4, align 8
  %call9 = tail call i32 %8() #11
  %tobool10.not = icmp eq i32 %call9, 0
  br i1 %tobool10.not, label %cond.false12, label %cond.end14

cond.false12:                                     ; preds = %if.then8
  %9 = load ptr, ptr @openmp.3, align 8
  %call13 = tail call i32 %9() #11
  br label %cond.end14

cond.end14:                                       ; preds = %if.then8, %cond.false12
  %cond15 = phi i32 [ %call13, %cond.false12 ], [ 1, %if.then8 ]
  %cmp16 = icmp ne i32 %cond114, 3
  %cmp18 = icmp slt i32 %cond15, 2
  %or.cond61 = select i1 %cmp16, i1 %cmp18, i1 false
  br i1 %or.cond61, label %if.then19, label %if.end21

if.then19:                                        ; preds = %cond.end14
  call void @llvm.lifetime.start.p0(i64 16, ptr nonnull %group.i97) #11
  call void @llvm.memcpy.p0.p0.i64(ptr noundef nonnull align 8 dereferenceable(16) %group.i97, ptr noundef nonnull align 8 dereferenceable(16) @__const.alone.group, i64 16, i1 false)
  %10 = atomicrmw add ptr @launches, i64 1 monotonic, align 16
  %call.i98 = call i32 %f(i32 noundef 0, ptr noundef nonnull %group.i97, ptr noundef %closure) #11
  call void @llvm.lifetime.end.p0(i64 16, ptr nonnull %group.i97) #11
  br label %cleanup57

if.end21:                                         ; preds = %cond.end14
  %cmp22 = icmp eq i32 %cond114, 2
  br i1 %cmp22, label %if.then23, label %if.end25

if.then23:                                        ; preds = %if.end21
  %call24 = tail call fastcc i32 @on_team(ptr noundef %f, ptr noundef %closure, ptr noundef %retval.1.i109113)
  br label %cleanup57

if.end25:                                         ; preds = %if.end21
  %cmp26 = icmp eq i32 %cond114, 4
  br i1 %cmp26, label %land.end, label %land.end.thread

land.end:                                         ; preds = %if.end25
  %launches = getelementptr inbounds nuw i8, ptr %retval.1.i109113, i64 4
  %11 = load i32, ptr %launches, align 4
  %inc = add nsw i32 %11, 1
  store i32 %inc, ptr %launches, align 4
  %debt = getelementptr inbounds nuw i8, ptr %retval.1.i109113, i64 32
  %12 = load atomic i64, ptr %debt monotonic, align 8
  %cmp.i = icmp sgt i64 %12, 0
  %conv.i = zext i1 %cmp.i to i32
  %cmp29 = icmp sgt i32 %cond15, 1
  br i1 %cmp29, label %land.lhs.true30, label %if.end38

land.end.thread:                                  ; preds = %if.end25
  %debt115 = getelementptr inbounds nuw i8, ptr %retval.1.i109113, i64 32
  %13 = load atomic i64, ptr %debt115 monotonic, align 8
  %cmp.i116 = icmp sgt i64 %13, 0
  %conv.i117 = zext i1 %cmp.i116 to i32
  %cmp29118 = icmp sgt i32 %cond15, 1
  br i1 %cmp29118, label %lor.lhs.false, label %if.end38

land.lhs.true30:                                  ; preds = %land.end
  %cmp27 = icmp eq i32 %inc, 8
  br i1 %cmp27, label %if.then36, label %lor.lhs.false

lor.lhs.false:                                    ; preds = %land.end.thread, %land.lhs.true30
  %debt120126 = phi ptr [ %debt, %land.lhs.true30 ], [ %debt115, %land.end.thread ]
  %conv.i121125 = phi i32 [ %conv.i, %land.lhs.true30 ], [ %conv.i117, %land.end.thread ]
  %tobool32.not = icmp eq i32 %conv.i121125, 0
  br i1 %tobool32.not, label %land.lhs.true33, label %if.end38.thread133

if.end38.thread133:                               ; preds = %lor.lhs.false
  %14 = tail call i32 @llvm.smin.i32(i32 %cond15, i32 %5)
  %threads.0138 = select i1 %cmp26, i32 %14, i32 %5
  br label %if.then45

land.lhs.true33:                                  ; preds = %lor.lhs.false
  %call34 = tail call fastcc i32 @team_runs(ptr noundef nonnull %retval.1.i109113, i32 noundef %cond15)
  %tobool35.not = icmp eq i32 %call34, 0
  br i1 %tobool35.not, label %if.end38.thread, label %if.then36

if.end38.thread:                                  ; preds = %land.lhs.true33
  %15 = tail call i32 @llvm.smin.i32(i32 %cond15, i32 %5)
  %threads.0131 = select i1 %cmp26, i32 %15, i32 %5
  br label %if.end54

if.then36:                                        ; preds = %land.lhs.true33, %land.lhs.true30
  %call37 = tail call fastcc i32 @on_team(ptr noundef %f, ptr noundef %closure, ptr noundef nonnull %retval.1.i109113)
  br label %cleanup57

if.end38:                                         ; preds = %land.end.thread, %land.end
  %conv.i122 = phi i32 [ %conv.i117, %land.end.thread ], [ %conv.i, %land.end ]
  %debt119 = phi ptr [ %debt115, %land.end.thread ], [ %debt, %land.end ]
  %16 = tail call i32 @llvm.smin.i32(i32 %cond15, i32 %5)
  %threads.0 = select i1 %cmp26, i32 %16, i32 %5
  %tobool44.not = icmp eq i32 %conv.i122, 0
  br i1 %tobool44.not, label %if.end54, label %if.then45

if.then45:                                        ; preds = %if.end38.thread133, %if.end38
  %threads.0141 = phi i32 [ %threads.0138, %if.end38.thread133 ], [ %threads.0, %if.end38 ]
  %debt119140 = phi ptr [ %debt120126, %if.end38.thread133 ], [ %debt119, %if.end38 ]
  call void @llvm.lifetime.start.p0(i64 16, ptr nonnull %t.i) #11
  %call.i99 = call i32 @clock_gettime(i32 noundef 1, ptr noundef nonnull %t.i) #11
  %17 = load i64, ptr %t.i, align 8
  %tv_nsec.i = getelementptr inbounds nuw i8, ptr %t.i, i64 8
  %18 = load i64, ptr %tv_nsec.i, align 8
  call void @llvm.lifetime.end.p0(i64 16, ptr nonnull %t.i) #11
  %call47 = call fastcc i32 @on_pool(ptr noundef %f, ptr noundef %closure, i32 noundef %threads.0141, i32 noundef %call3)
  call void @llvm.lifetime.start.p0(i64 16, ptr nonnull %t.i100) #11
  %call.i101 = call i32 @clock_gettime(i32 noundef 1, ptr noundef nonnull %t.i100) #11
  %19 = load i64, ptr %t.i100, align 8
  %tv_nsec.i103 = getelementptr inbounds nuw i8, ptr %t.i100, i64 8
  %20 = load i64, ptr %tv_nsec.i103, align 8
  call void @llvm.lifetime.end.p0(i64 16, ptr nonnull %t.i100) #11
  %reass.add = sub i64 %19, %17
  %reass.mul = mul i64 %reass.add, 1000000000
  %add.i104 = sub i64 %20, %18
  %sub = add i64 %add.i104, %reass.mul
  %sub50 = add nsw i32 %cond15, -1
  %21 = load atomic i64, ptr %debt119140 monotonic, align 8
  %conv.i105 = sext i32 %sub50 to i64
  %mul.i106 = mul nsw i64 %sub, %conv.i105
  %div.neg.i = sdiv i64 %mul.i106, -16
  %sub.i = add i64 %div.neg.i, %21
  %cond.i = call i64 @llvm.smax.i64(i64 %sub.i, i64 0)
  store atomic i64 %cond.i, ptr %debt119140 monotonic, align 8
  br label %cleanup57

if.end54:                                         ; preds = %if.end38, %if.end38.thread, %if.end
  %threads.3 = phi i32 [ %5, %if.end ], [ %threads.0, %if.end38 ], [ %threads.0131, %if.end38.thread ]
  %call55 = tail call fastcc i32 @on_pool(ptr noundef %f, ptr noundef %closure, i32 noundef %threads.3, i32 noundef %call3)
  br label %cleanup57

cleanup57:                                        ; preds = %if.then45, %if.then36, %if.then23, %if.then19, %if.end54, %if.then
  %retval.3 = phi i32 [ %call.i96, %if.then ], [ %call55, %if.end54 ], [ %call47, %if.then45 ], [ %call37, %if.then36 ], [ %call24, %if.then23 ], [ %call.i98, %if.then19 ]
  ret i32 %retval.3
}

; Function Attrs: mustprogress nofree norecurse nosync nounwind willreturn memory(write, argmem: readwrite, inaccessiblemem: none) uwtable
define noundef i32 @__tvm_ffi_configure(ptr nocapture noundef readnone %self, ptr nocapture noundef readonly %args, i32 noundef %count, ptr nocapture noundef writeonly initializes((0, 16)) %result) local_unnamed_addr #3 {
entry:
  %value = getelementptr inbounds nuw i8, ptr %args, i64 8
  %0 = load i64, ptr %value, align 8
  %conv = trunc i64 %0 to i32
  store i32 %conv, ptr @settings.0, align 8
  %value2 = getelementptr inbounds nuw i8, ptr %args, i64 24
  %1 = load i64, ptr %value2, align 8
  %conv3 = trunc i64 %1 to i32
  store i32 %conv3, ptr @settings.1, align 4
  %value5 = getelementptr inbounds nuw i8, ptr %args, i64 40
  %2 = load i64, ptr %value5, align 8
  store i64 %2, ptr @settings.2, align 8
  store i32 1, ptr %result, align 8
  %padding.i = getelementptr inbounds nuw i8, ptr %result, i64 4
  store i32 0, ptr %padding.i, align 4
  %value1.i = getelementptr inbounds nuw i8, ptr %result, i64 8
  store i64 0, ptr %value1.i, align 8
  ret i32 0
}

; Function Attrs: nounwind uwtable
define noundef i32 @__tvm_ffi_use_openmp(ptr nocapture noundef readnone %self, ptr nocapture noundef readonly %args, i32 noundef %count, ptr nocapture noundef writeonly initializes((0, 16)) %result) local_unnamed_addr #0 {
entry:
  %value = getelementptr inbounds nuw i8, ptr %args, i64 24
  %0 = load i64, ptr %value, align 8
  %1 = inttoptr i64 %0 to ptr
  store ptr %1, ptr @openmp.1, align 8
  %value2 = getelementptr inbounds nuw i8, ptr %args, i64 40
  %2 = load i64, ptr %value2, align 8
  %3 = inttoptr i64 %2 to ptr
  store ptr %3, ptr @openmp.2, align 8
  %value4 = getelementptr inbounds nuw i8, ptr %args, i64 56
  %4 = load i64, ptr %value4, align 8
  %5 = inttoptr i64 %4 to ptr
  store ptr %5, ptr @openmp.3, align 8
  %value6 = getelementptr inbounds nuw i8, ptr %args, i64 72
  %6 = load i64, ptr %value6, align 8
  %7 = inttoptr i64 %6 to ptr
  store ptr %7, ptr @openmp.4, align 8
  %value8 = getelementptr inbounds nuw i8, ptr %args, i64 8
  %8 = load i64, ptr %value8, align 8
  %9 = inttoptr i64 %8 to ptr
  store ptr %9, ptr @openmp.0, align 8
  %call = tail call i32 @getpid() #11
  store i32 %call, ptr @openmp.5, align 8
  store i32 1, ptr %result, align 8
  %padding.i = getelementptr inbounds nuw i8, ptr %result, i64 4
  store i32 0, ptr %padding.i, align 4
  %value1.i = getelementptr inbounds nuw i8, ptr %result, i64 8
  store i64 0, ptr %value1.i, align 8
  ret i32 0
}

; Function Attrs: nounwind
declare i32 @getpid() local_unnamed_addr #1

; Function Attrs: nounwind uwtable
define noundef i32 @__tvm_ffi_select(ptr nocapture noundef readnone %self, ptr nocapture noundef readonly %args, i32 noundef %count, ptr nocapture noundef writeonly initializes((0, 16)) %result) local_unnamed_addr #0 {
entry:
  %0 = load i32, ptr @has_callers, align 4
  %tobool.not.i = icmp eq i32 %0, 0
  br i1 %tobool.not.i, label %if.end, label %if.end.i

if.end.i:                                         ; preds = %entry
  %1 = load i32, ptr @callers, align 4
  %call.i = tail call ptr @pthread_getspecific(i32 noundef %1) #11
  %tobool1.not.i = icmp eq ptr %call.i, null
  br i1 %tobool1.not.i, label %lor.lhs.false.i, label %if.then

lor.lhs.false.i:                                  ; preds = %if.end.i
  %call2.i = tail call noalias dereferenceable_or_null(40) ptr @calloc(i64 noundef 1, i64 noundef 40) #14
  %tobool3.not.i = icmp eq ptr %call2.i, null
  br i1 %tobool3.not.i, label %if.end, label %if.end5.i

if.end5.i:                                        ; preds = %lor.lhs.false.i
  store i32 3, ptr %call2.i, align 8
  %2 = load i32, ptr @callers, align 4
  %call6.i = tail call i32 @pthread_setspecific(i32 noundef %2, ptr noundef nonnull %call2.i) #11
  %tobool7.not.i = icmp eq i32 %call6.i, 0
  br i1 %tobool7.not.i, label %if.then, label %if.end9.i

if.end9.i:                                        ; preds = %if.end5.i
  tail call void @free(ptr noundef nonnull %call2.i) #11
  br label %if.end

if.then:                                          ; preds = %if.end5.i, %if.end.i
  %retval.1.i = phi ptr [ %call.i, %if.end.i ], [ %call2.i, %if.end5.i ]
  %3 = load i32, ptr %retval.1.i, align 8
  %4 = sext i32 %3 to i64
  %value = getelementptr inbounds nuw i8, ptr %args, i64 8
  %5 = load i64, ptr %value, align 8
  %conv = trunc i64 %5 to i32
  store i32 %conv, ptr %retval.1.i, align 8
  br label %if.end

if.end:                                           ; preds = %entry, %if.end9.i, %lor.lhs.false.i, %if.then
  %cond15 = phi i64 [ %4, %if.then ], [ 1, %lor.lhs.false.i ], [ 1, %if.end9.i ], [ 1, %entry ]
  store i32 1, ptr %result, align 8
  %padding.i = getelementptr inbounds nuw i8, ptr %result, i64 4
  store i32 0, ptr %padding.i, align 4
  %value1.i = getelementptr inbounds nuw i8, ptr %result, i64 8
  store i64 %cond15, ptr %value1.i, align 8
  ret i32 0
}

; Function Attrs: mustprogress nocallback nofree nosync nounwind willreturn memory(argmem: readwrite)
declare void @llvm.lifetime.start.p0(i64 immarg, ptr nocapture) #4

; Function Attrs: mustprogress nocallback nofree nosync nounwind willreturn memory(argmem: readwrite)
declare void @llvm.lifetime.end.p0(i64 immarg, ptr nocapture) #4

; Function Attrs: mustprogress nofree norecurse nounwind willreturn memory(readwrite, inaccessiblemem: none) uwtable
define noundef i32 @__tvm_ffi_count(ptr nocapture noundef readnone %self, ptr nocapture noundef readonly %args, i32 noundef %count, ptr nocapture noundef writeonly initializes((0, 16)) %result) local_unnamed_addr #5 {
entry:
  %value = getelementptr inbounds nuw i8, ptr %args, i64 8
  %0 = load i64, ptr %value, align 8
  %cmp = icmp eq i64 %0, 3
  br i1 %cmp, label %cond.true, label %cond.false

cond.true:                                        ; preds = %entry
  %1 = load i32, ptr getelementptr inbounds nuw (i8, ptr @pool, i64 396), align 4
  %conv = sext i32 %1 to i64
  br label %cond.end

cond.false:                                       ; preds = %entry
  %arrayidx3 = getelementptr inbounds [3 x i64], ptr @launches, i64 0, i64 %0
  %atomic-load = load atomic i64, ptr %arrayidx3 seq_cst, align 8
  br label %cond.end

cond.end:                                         ; preds = %cond.false, %cond.true
  %cond = phi i64 [ %conv, %cond.true ], [ %atomic-load, %cond.false ]
  store i32 1, ptr %result, align 8
  %padding.i = getelementptr inbounds nuw i8, ptr %result, i64 4
  store i32 0, ptr %padding.i, align 4
  %value1.i = getelementptr inbounds nuw i8, ptr %result, i64 8
  store i64 %cond, ptr %value1.i, align 8
  ret i32 0
}

; Function Attrs: nounwind uwtable
define internal fastcc i32 @on_team(ptr noundef %f, ptr noundef %closure, ptr noundef %caller) unnamed_addr #0 {
entry:
  %t.i16 = alloca %struct.timespec, align 8
  %t.i11 = alloca %struct.timespec, align 8
  %t.i = alloca %struct.timespec, align 8
  %job = alloca %struct.TeamJob, align 8
  call void @llvm.lifetime.start.p0(i64 40, ptr nonnull %job) #11
  store ptr %f, ptr %job, align 8
  %closure2 = getelementptr inbounds nuw i8, ptr %job, i64 8
  store ptr %closure, ptr %closure2, align 8
  %caller3 = getelementptr inbounds nuw i8, ptr %job, i64 16
  store ptr %caller, ptr %caller3, align 8
  %cpu = getelementptr inbounds nuw i8, ptr %job, i64 24
  call void @llvm.lifetime.start.p0(i64 16, ptr nonnull %t.i) #11
  %call.i = call i32 @clock_gettime(i32 noundef 3, ptr noundef nonnull %t.i) #11
  %tobool.not.i = icmp eq i32 %call.i, 0
  br i1 %tobool.not.i, label %cond.false.i, label %cpu_time.exit

cond.false.i:                                     ; preds = %entry
  %0 = load i64, ptr %t.i, align 8
  %mul.i = mul nsw i64 %0, 1000000000
  %tv_nsec.i = getelementptr inbounds nuw i8, ptr %t.i, i64 8
  %1 = load i64, ptr %tv_nsec.i, align 8
  %add.i = add nsw i64 %mul.i, %1
  br label %cpu_time.exit

cpu_time.exit:                                    ; preds = %entry, %cond.false.i
  %cond.i = phi i64 [ %add.i, %cond.false.i ], [ -1, %entry ]
  call void @llvm.lifetime.end.p0(i64 16, ptr nonnull %t.i) #11
  store i64 %cond.i, ptr %cpu, align 8
  %status = getelementptr inbounds nuw i8, ptr %job, i64 32
  store i32 0, ptr %status, align 8
  %2 = getelementptr inbounds nuw i8, ptr %job, i64 36
  store i32 0, ptr %2, align 4
  call void @llvm.lifetime.start.p0(i64 16, ptr nonnull %t.i11) #11
  %call.i12 = call i32 @clock_gettime(i32 noundef 1, ptr noundef nonnull %t.i11) #11
  %3 = load i64, ptr %t.i11, align 8
  %tv_nsec.i14 = getelementptr inbounds nuw i8, ptr %t.i11, i64 8
  %4 = load i64, ptr %tv_nsec.i14, align 8
  call void @llvm.lifetime.end.p0(i64 16, ptr nonnull %t.i11) #11
  %5 = load ptr, ptr @openmp.0, align 8
  call void %5(ptr noundef nonnull @member, ptr noundef nonnull %job, i32 noundef 0, i32 noundef 0) #11
  call void @llvm.lifetime.start.p0(i64 16, ptr nonnull %t.i16) #11
  %call.i17 = call i32 @clock_gettime(i32 noundef 1, ptr noundef nonnull %t.i16) #11
  %6 = load i64, ptr %t.i16, align 8
  %tv_nsec.i19 = getelementptr inbounds nuw i8, ptr %t.i16, i64 8
  %7 = load i64, ptr %tv_nsec.i19, align 8
  call void @llvm.lifetime.end.p0(i64 16, ptr nonnull %t.i16) #11
  %8 = load i64, ptr %cpu, align 8
  %members = getelementptr inbounds nuw i8, ptr %caller, i64 8
  %9 = load i32, ptr %members, align 8
  %conv = sext i32 %9 to i64
  %mul = mul nsw i64 %8, %conv
  %div.neg.i = sdiv i64 %mul, -8
  %reass.add = sub i64 %6, %3
  %reass.mul = mul i64 %reass.add, 1000000000
  %10 = add i64 %7, %reass.mul
  %11 = add i64 %4, %mul
  %sub.i = sub i64 %10, %11
  %sub1.i = add i64 %sub.i, %div.neg.i
  %cmp.i = icmp slt i64 %sub1.i, 2000
  br i1 %cmp.i, label %charge.exit, label %if.end.i

if.end.i:                                         ; preds = %cpu_time.exit
  %debt = getelementptr inbounds nuw i8, ptr %caller, i64 32
  %12 = load atomic i64, ptr %debt monotonic, align 8
  %add.i21 = add nsw i64 %12, %sub1.i
  %cond.i22 = call i64 @llvm.smin.i64(i64 %add.i21, i64 20000000)
  store atomic i64 %cond.i22, ptr %debt monotonic, align 8
  br label %charge.exit

charge.exit:                                      ; preds = %cpu_time.exit, %if.end.i
  %13 = atomicrmw add ptr getelementptr inbounds nuw (i8, ptr @launches, i64 16), i64 1 monotonic, align 16
  %atomic-load = load atomic i32, ptr %status seq_cst, align 8
  %tobool.not.i23 = icmp eq i32 %atomic-load, 0
  br i1 %tobool.not.i23, label %elsewhere.exit, label %if.then.i

if.then.i:                                        ; preds = %charge.exit
  call void @TVMFFIErrorSetRaisedFromCStr(ptr noundef nonnull @.str, ptr noundef nonnull @.str.1) #11
  br label %elsewhere.exit

elsewhere.exit:                                   ; preds = %charge.exit, %if.then.i
  call void @llvm.lifetime.end.p0(i64 40, ptr nonnull %job) #11
  ret i32 %atomic-load
}

; Function Attrs: nounwind uwtable
define internal fastcc range(i32 0, 2) i32 @team_runs(ptr nocapture noundef readonly %caller, i32 noundef range(i32 2, -2147483648) %threads) unnamed_addr #0 {
entry:
  %t.i33.i = alloca %struct.timespec, align 8
  %t.i.i = alloca %struct.timespec, align 8
  %before.i = alloca [4 x i64], align 16
  %members = getelementptr inbounds nuw i8, ptr %caller, i64 8
  %0 = load i32, ptr %members, align 8
  %cmp = icmp eq i32 %0, %threads
  br i1 %cmp, label %land.rhs, label %land.end

land.rhs:                                         ; preds = %entry
  %clocks = getelementptr inbounds nuw i8, ptr %caller, i64 12
  %1 = tail call i32 @llvm.umin.i32(i32 %threads, i32 5)
  %cond = add nsw i32 %1, -1
  call void @llvm.lifetime.start.p0(i64 32, ptr nonnull %before.i) #11
  %tv_nsec.i.i = getelementptr inbounds nuw i8, ptr %t.i.i, i64 8
  %wide.trip.count.i = zext nneg i32 %cond to i64
  br label %for.body.i

for.cond.i:                                       ; preds = %cpu_time.exit.i
  %indvars.iv.next.i = add nuw nsw i64 %indvars.iv.i, 1
  %exitcond.not.i = icmp eq i64 %indvars.iv.next.i, %wide.trip.count.i
  br i1 %exitcond.not.i, label %for.cond5.preheader.i, label %for.body.i, !llvm.loop !6

for.cond5.preheader.i:                            ; preds = %for.cond.i
  %tv_nsec.i39.i = getelementptr inbounds nuw i8, ptr %t.i33.i, i64 8
  br label %for.body8.i

for.body.i:                                       ; preds = %for.cond.i, %land.rhs
  %indvars.iv.i = phi i64 [ 0, %land.rhs ], [ %indvars.iv.next.i, %for.cond.i ]
  %arrayidx.i = getelementptr inbounds nuw i32, ptr %clocks, i64 %indvars.iv.i
  %2 = load i32, ptr %arrayidx.i, align 4
  call void @llvm.lifetime.start.p0(i64 16, ptr nonnull %t.i.i) #11
  %call.i.i = call i32 @clock_gettime(i32 noundef %2, ptr noundef nonnull %t.i.i) #11
  %tobool.not.i.i = icmp eq i32 %call.i.i, 0
  br i1 %tobool.not.i.i, label %cpu_time.exit.i, label %cpu_time.exit.thread.i

cpu_time.exit.thread.i:                           ; preds = %for.body.i
  call void @llvm.lifetime.end.p0(i64 16, ptr nonnull %t.i.i) #11
  br label %all_run.exit

cpu_time.exit.i:                                  ; preds = %for.body.i
  %3 = load i64, ptr %t.i.i, align 8
  %mul.i.i = mul nsw i64 %3, 1000000000
  %4 = load i64, ptr %tv_nsec.i.i, align 8
  %add.i.i = add nsw i64 %mul.i.i, %4
  call void @llvm.lifetime.end.p0(i64 16, ptr nonnull %t.i.i) #11
  %arrayidx2.i = getelementptr inbounds nuw [4 x i64], ptr %before.i, i64 0, i64 %indvars.iv.i
  store i64 %add.i.i, ptr %arrayidx2.i, align 8
  %cmp3.i = icmp slt i64 %add.i.i, 0
  br i1 %cmp3.i, label %all_run.exit, label %for.cond.i

for.body8.i:                                      ; preds = %cpu_time.exit41.i, %for.cond5.preheader.i
  %indvars.iv52.i = phi i64 [ 0, %for.cond5.preheader.i ], [ %indvars.iv.next53.i, %cpu_time.exit41.i ]
  %arrayidx10.i = getelementptr inbounds nuw i32, ptr %clocks, i64 %indvars.iv52.i
  %5 = load i32, ptr %arrayidx10.i, align 4
  call void @llvm.lifetime.start.p0(i64 16, ptr nonnull %t.i33.i) #11
  %call.i34.i = call i32 @clock_gettime(i32 noundef %5, ptr noundef nonnull %t.i33.i) #11
  %tobool.not.i35.i = icmp eq i32 %call.i34.i, 0
  br i1 %tobool.not.i35.i, label %cond.false.i37.i, label %cpu_time.exit41.i

cond.false.i37.i:                                 ; preds = %for.body8.i
  %6 = load i64, ptr %t.i33.i, align 8
  %mul.i38.i = mul nsw i64 %6, 1000000000
  %7 = load i64, ptr %tv_nsec.i39.i, align 8
  %add.i40.i = add nsw i64 %mul.i38.i, %7
  br label %cpu_time.exit41.i

cpu_time.exit41.i:                                ; preds = %cond.false.i37.i, %for.body8.i
  %cond.i36.i = phi i64 [ %add.i40.i, %cond.false.i37.i ], [ -1, %for.body8.i ]
  call void @llvm.lifetime.end.p0(i64 16, ptr nonnull %t.i33.i) #11
  %arrayidx13.i = getelementptr inbounds nuw [4 x i64], ptr %before.i, i64 0, i64 %indvars.iv52.i
  %8 = load i64, ptr %arrayidx13.i, align 8
  %cmp14.not.i = icmp sgt i64 %cond.i36.i, %8
  %indvars.iv.next53.i = add nuw nsw i64 %indvars.iv52.i, 1
  %exitcond56.not.i = icmp ne i64 %indvars.iv.next53.i, %wide.trip.count.i
  %or.cond.not.i = select i1 %cmp14.not.i, i1 %exitcond56.not.i, i1 false
  br i1 %or.cond.not.i, label %for.body8.i, label %cleanup19.i, !llvm.loop !8

cleanup19.i:                                      ; preds = %cpu_time.exit41.i
  %spec.select.i = zext i1 %cmp14.not.i to i32
  br label %all_run.exit

all_run.exit:                                     ; preds = %cpu_time.exit.i, %cpu_time.exit.thread.i, %cleanup19.i
  %retval.2.i = phi i32 [ %spec.select.i, %cleanup19.i ], [ 0, %cpu_time.exit.thread.i ], [ 0, %cpu_time.exit.i ]
  call void @llvm.lifetime.end.p0(i64 32, ptr nonnull %before.i) #11
  br label %land.end

land.end:                                         ; preds = %all_run.exit, %entry
  %land.ext = phi i32 [ 0, %entry ], [ %retval.2.i, %all_run.exit ]
  ret i32 %land.ext
}

; Function Attrs: nounwind uwtable
define internal fastcc i32 @on_pool(ptr noundef %f, ptr noundef %closure, i32 noundef %threads, i32 noundef %process) unnamed_addr #0 {
entry:
  %t.i212 = alloca %struct.timespec, align 8
  %t.i207 = alloca %struct.timespec, align 8
  %t.i198 = alloca %struct.timespec, align 8
  %t.i192 = alloca %struct.timespec, align 8
  %t.i187 = alloca %struct.timespec, align 8
  %t.i.i180 = alloca %struct.timespec, align 8
  %group.i.i181 = alloca %struct.Group, align 8
  %attributes.i = alloca %union.pthread_attr_t, align 8
  %all.i = alloca %struct.__sigset_t, align 8
  %before.i = alloca %struct.__sigset_t, align 8
  %thread.i = alloca i64, align 8
  %group.i = alloca %struct.Group, align 8
  %t.i165 = alloca %struct.timespec, align 8
  %t.i.i = alloca %struct.timespec, align 8
  %group.i.i = alloca %struct.Group, align 8
  %t.i = alloca %struct.timespec, align 8
  %part = alloca %struct.Part, align 8
  %cmp = icmp sgt i32 %threads, 1
  br i1 %cmp, label %land.lhs.true, label %if.then11

land.lhs.true:                                    ; preds = %entry
  %0 = load atomic i64, ptr getelementptr inbounds nuw (i8, ptr @pool, i64 936) monotonic, align 8
  %cmp.i = icmp slt i64 %0, 1
  br i1 %cmp.i, label %lor.lhs.false, label %if.then

if.then:                                          ; preds = %land.lhs.true
  call void @llvm.lifetime.start.p0(i64 16, ptr nonnull %t.i) #11
  %call.i = call i32 @clock_gettime(i32 noundef 1, ptr noundef nonnull %t.i) #11
  %1 = load i64, ptr %t.i, align 8
  %tv_nsec.i = getelementptr inbounds nuw i8, ptr %t.i, i64 8
  %2 = load i64, ptr %tv_nsec.i, align 8
  call void @llvm.lifetime.end.p0(i64 16, ptr nonnull %t.i) #11
  call void @llvm.lifetime.start.p0(i64 16, ptr nonnull %group.i.i) #11
  call void @llvm.memcpy.p0.p0.i64(ptr noundef nonnull align 8 dereferenceable(16) %group.i.i, ptr noundef nonnull align 8 dereferenceable(16) @__const.alone.group, i64 16, i1 false)
  %3 = atomicrmw add ptr @launches, i64 1 monotonic, align 16
  %call.i.i = call i32 %f(i32 noundef 0, ptr noundef nonnull %group.i.i, ptr noundef %closure) #11
  call void @llvm.lifetime.end.p0(i64 16, ptr nonnull %group.i.i) #11
  call void @llvm.lifetime.start.p0(i64 16, ptr nonnull %t.i.i) #11
  %call.i2.i = call i32 @clock_gettime(i32 noundef 1, ptr noundef nonnull %t.i.i) #11
  %4 = load i64, ptr %t.i.i, align 8
  %mul.i.i = mul nsw i64 %4, 1000000000
  %tv_nsec.i.i = getelementptr inbounds nuw i8, ptr %t.i.i, i64 8
  %5 = load i64, ptr %tv_nsec.i.i, align 8
  %add.i.i = add nsw i64 %mul.i.i, %5
  call void @llvm.lifetime.end.p0(i64 16, ptr nonnull %t.i.i) #11
  store atomic i64 %add.i.i, ptr getelementptr inbounds nuw (i8, ptr @pool, i64 408) monotonic, align 8
  call void @llvm.lifetime.start.p0(i64 16, ptr nonnull %t.i165) #11
  %call.i166 = call i32 @clock_gettime(i32 noundef 1, ptr noundef nonnull %t.i165) #11
  %6 = load i64, ptr %t.i165, align 8
  %tv_nsec.i168 = getelementptr inbounds nuw i8, ptr %t.i165, i64 8
  %7 = load i64, ptr %tv_nsec.i168, align 8
  call void @llvm.lifetime.end.p0(i64 16, ptr nonnull %t.i165) #11
  %reass.add = sub i64 %6, %1
  %reass.mul = mul i64 %reass.add, 1000000000
  %add.i169 = sub i64 %7, %2
  %sub = add i64 %add.i169, %reass.mul
  %sub4 = add nsw i32 %threads, -1
  %8 = load atomic i64, ptr getelementptr inbounds nuw (i8, ptr @pool, i64 936) monotonic, align 8
  %conv.i170 = zext nneg i32 %sub4 to i64
  %mul.i171 = mul nsw i64 %sub, %conv.i170
  %div.neg.i = sdiv i64 %mul.i171, -16
  %sub.i = add i64 %div.neg.i, %8
  %cond.i = call i64 @llvm.smax.i64(i64 %sub.i, i64 0)
  store atomic i64 %cond.i, ptr getelementptr inbounds nuw (i8, ptr @pool, i64 936) monotonic, align 8
  store atomic i32 4, ptr getelementptr inbounds nuw (i8, ptr @pool, i64 388) monotonic, align 4
  br label %return

lor.lhs.false:                                    ; preds = %land.lhs.true
  %9 = load atomic i32, ptr getelementptr inbounds nuw (i8, ptr @pool, i64 392) seq_cst, align 8
  %cmp.i172 = icmp eq i32 %9, %process
  br i1 %cmp.i172, label %lor.lhs.false8, label %if.end.i

if.end.i:                                         ; preds = %lor.lhs.false
  %cmp1.i = icmp slt i32 %9, 0
  br i1 %cmp1.i, label %if.then11, label %lor.lhs.false.i

lor.lhs.false.i:                                  ; preds = %if.end.i
  %10 = cmpxchg ptr getelementptr inbounds nuw (i8, ptr @pool, i64 392), i32 %9, i32 -1 seq_cst seq_cst, align 8
  %11 = extractvalue { i32, i1 } %10, 1
  br i1 %11, label %if.end3.i, label %if.then11

if.end3.i:                                        ; preds = %lor.lhs.false.i
  %12 = load atomic i64, ptr @pool seq_cst, align 128
  %shr.i.i = and i64 %12, -1073741824
  %shl.i.i = add i64 %shr.i.i, 1073741824
  store atomic i64 %shl.i.i, ptr @pool seq_cst, align 128
  store i32 0, ptr getelementptr inbounds nuw (i8, ptr @pool, i64 400), align 16
  store i32 0, ptr getelementptr inbounds nuw (i8, ptr @pool, i64 396), align 4
  br label %for.body.i

for.cond.cleanup.i:                               ; preds = %for.body.i
  store atomic i32 0, ptr getelementptr inbounds nuw (i8, ptr @pool, i64 384) seq_cst, align 128
  store atomic i32 %process, ptr getelementptr inbounds nuw (i8, ptr @pool, i64 392) seq_cst, align 8
  br label %lor.lhs.false8

for.body.i:                                       ; preds = %for.body.i.3, %if.end3.i
  %indvars.iv.i = phi i64 [ 0, %if.end3.i ], [ %indvars.iv.next.i.3, %for.body.i.3 ]
  %arrayidx.i = getelementptr inbounds nuw [511 x %struct.Helper], ptr getelementptr inbounds nuw (i8, ptr @pool, i64 1024), i64 0, i64 %indvars.iv.i
  store atomic i32 0, ptr %arrayidx.i monotonic, align 128
  %busy.i = getelementptr inbounds nuw i8, ptr %arrayidx.i, i64 4
  store atomic i32 0, ptr %busy.i monotonic, align 4
  %held.i = getelementptr inbounds nuw i8, ptr %arrayidx.i, i64 8
  store atomic i32 0, ptr %held.i monotonic, align 8
  %indvars.iv.next.i = or disjoint i64 %indvars.iv.i, 1
  %arrayidx.i.1 = getelementptr inbounds nuw [511 x %struct.Helper], ptr getelementptr inbounds nuw (i8, ptr @pool, i64 1024), i64 0, i64 %indvars.iv.next.i
  store atomic i32 0, ptr %arrayidx.i.1 monotonic, align 128
  %busy.i.1 = getelementptr inbounds nuw i8, ptr %arrayidx.i.1, i64 4
  store atomic i32 0, ptr %busy.i.1 monotonic, align 4
  %held.i.1 = getelementptr inbounds nuw i8, ptr %arrayidx.i.1, i64 8
  store atomic i32 0, ptr %held.i.1 monotonic, align 8
  %indvars.iv.next.i.1 = or disjoint i64 %indvars.iv.i, 2
  %arrayidx.i.2 = getelementptr inbounds nuw [511 x %struct.Helper], ptr getelementptr inbounds nuw (i8, ptr @pool, i64 1024), i64 0, i64 %indvars.iv.next.i.1
  store atomic i32 0, ptr %arrayidx.i.2 monotonic, align 128
  %busy.i.2 = getelementptr inbounds nuw i8, ptr %arrayidx.i.2, i64 4
  store atomic i32 0, ptr %busy.i.2 monotonic, align 4
  %held.i.2 = getelementptr inbounds nuw i8, ptr %arrayidx.i.2, i64 8
  store atomic i32 0, ptr %held.i.2 monotonic, align 8
  %exitcond.not.i.2 = icmp eq i64 %indvars.iv.i, 508
  br i1 %exitcond.not.i.2, label %for.cond.cleanup.i, label %for.body.i.3, !llvm.loop !9

for.body.i.3:                                     ; preds = %for.body.i
  %indvars.iv.next.i.2 = or disjoint i64 %indvars.iv.i, 3
  %arrayidx.i.3 = getelementptr inbounds nuw [511 x %struct.Helper], ptr getelementptr inbounds nuw (i8, ptr @pool, i64 1024), i64 0, i64 %indvars.iv.next.i.2
  store atomic i32 0, ptr %arrayidx.i.3 monotonic, align 128
  %busy.i.3 = getelementptr inbounds nuw i8, ptr %arrayidx.i.3, i64 4
  store atomic i32 0, ptr %busy.i.3 monotonic, align 4
  %held.i.3 = getelementptr inbounds nuw i8, ptr %arrayidx.i.3, i64 8
  store atomic i32 0, ptr %held.i.3 monotonic, align 8
  %indvars.iv.next.i.3 = add nuw nsw i64 %indvars.iv.i, 4
  br label %for.body.i

lor.lhs.false8:                                   ; preds = %for.cond.cleanup.i, %lor.lhs.false
  %13 = atomicrmw xchg ptr getelementptr inbounds nuw (i8, ptr @pool, i64 384), i32 1 seq_cst, align 128
  %tobool10.not = icmp eq i32 %13, 0
  br i1 %tobool10.not, label %if.end13, label %if.then11

if.then11:                                        ; preds = %if.end.i, %lor.lhs.false.i, %entry, %lor.lhs.false8
  call void @llvm.lifetime.start.p0(i64 16, ptr nonnull %group.i) #11
  call void @llvm.memcpy.p0.p0.i64(ptr noundef nonnull align 8 dereferenceable(16) %group.i, ptr noundef nonnull align 8 dereferenceable(16) @__const.alone.group, i64 16, i1 false)
  %14 = atomicrmw add ptr @launches, i64 1 monotonic, align 16
  %call.i173 = call i32 %f(i32 noundef 0, ptr noundef nonnull %group.i, ptr noundef %closure) #11
  call void @llvm.lifetime.end.p0(i64 16, ptr nonnull %group.i) #11
  br label %return

if.end13:                                         ; preds = %lor.lhs.false8
  %spec.store.select = tail call i32 @llvm.smin.i32(i32 %threads, i32 512)
  %sub17 = add nsw i32 %spec.store.select, -1
  call void @llvm.lifetime.start.p0(i64 56, ptr nonnull %attributes.i) #11
  call void @llvm.lifetime.start.p0(i64 128, ptr nonnull %all.i) #11
  call void @llvm.lifetime.start.p0(i64 128, ptr nonnull %before.i) #11
  %15 = load i32, ptr getelementptr inbounds nuw (i8, ptr @pool, i64 396), align 4
  %cmp.i174 = icmp sge i32 %15, %sub17
  %16 = load i32, ptr getelementptr inbounds nuw (i8, ptr @pool, i64 400), align 16
  %tobool.i = icmp ne i32 %16, 0
  %or.cond.i = select i1 %cmp.i174, i1 true, i1 %tobool.i
  br i1 %or.cond.i, label %start_helpers.exit, label %lor.lhs.false1.i

lor.lhs.false1.i:                                 ; preds = %if.end13
  %call.i175 = call i32 @pthread_attr_init(ptr noundef nonnull %attributes.i) #11
  %tobool2.not.i = icmp eq i32 %call.i175, 0
  br i1 %tobool2.not.i, label %if.end.i176, label %start_helpers.exit

if.end.i176:                                      ; preds = %lor.lhs.false1.i
  %call3.i = call i32 @pthread_attr_setdetachstate(ptr noundef nonnull %attributes.i, i32 noundef 1) #11
  %call4.i = call i32 @pthread_attr_setstacksize(ptr noundef nonnull %attributes.i, i64 noundef 1048576) #11
  %call5.i = call i32 @sigfillset(ptr noundef nonnull %all.i) #11
  %call6.i = call i32 @pthread_sigmask(i32 noundef 2, ptr noundef nonnull %all.i, ptr noundef nonnull %before.i) #11
  call void @llvm.lifetime.start.p0(i64 8, ptr nonnull %thread.i) #11
  %17 = load i32, ptr getelementptr inbounds nuw (i8, ptr @pool, i64 396), align 4
  %cmp718.i = icmp slt i32 %17, %sub17
  %18 = load i32, ptr getelementptr inbounds nuw (i8, ptr @pool, i64 400), align 16
  %tobool8.not19.i = icmp eq i32 %18, 0
  %19 = select i1 %cmp718.i, i1 %tobool8.not19.i, i1 false
  br i1 %19, label %for.body.i178, label %for.cond.cleanup.i177

for.cond.cleanup.i177:                            ; preds = %if.end12.i, %if.end12.thread.i, %if.end.i176
  call void @llvm.lifetime.end.p0(i64 8, ptr nonnull %thread.i) #11
  %call13.i = call i32 @pthread_sigmask(i32 noundef 2, ptr noundef nonnull %before.i, ptr noundef null) #11
  %call14.i = call i32 @pthread_attr_destroy(ptr noundef nonnull %attributes.i) #11
  br label %start_helpers.exit

for.body.i178:                                    ; preds = %if.end.i176, %if.end12.i
  %20 = phi i32 [ %inc.i, %if.end12.i ], [ %17, %if.end.i176 ]
  %conv.i179 = sext i32 %20 to i64
  %21 = inttoptr i64 %conv.i179 to ptr
  %call9.i = call i32 @pthread_create(ptr noundef nonnull %thread.i, ptr noundef nonnull %attributes.i, ptr noundef nonnull @help, ptr noundef %21) #11
  %tobool10.not.i = icmp eq i32 %call9.i, 0
  br i1 %tobool10.not.i, label %if.end12.i, label %if.end12.thread.i

if.end12.thread.i:                                ; preds = %for.body.i178
  store i32 1, ptr getelementptr inbounds nuw (i8, ptr @pool, i64 400), align 16
  br label %for.cond.cleanup.i177

if.end12.i:                                       ; preds = %for.body.i178
  %22 = load i32, ptr getelementptr inbounds nuw (i8, ptr @pool, i64 396), align 4
  %inc.i = add nsw i32 %22, 1
  store i32 %inc.i, ptr getelementptr inbounds nuw (i8, ptr @pool, i64 396), align 4
  %.pre20.i = load i32, ptr getelementptr inbounds nuw (i8, ptr @pool, i64 400), align 16
  %23 = icmp eq i32 %.pre20.i, 0
  %cmp7.i = icmp slt i32 %inc.i, %sub17
  %24 = select i1 %cmp7.i, i1 %23, i1 false
  br i1 %24, label %for.body.i178, label %for.cond.cleanup.i177, !llvm.loop !10

start_helpers.exit:                               ; preds = %if.end13, %lor.lhs.false1.i, %for.cond.cleanup.i177
  call void @llvm.lifetime.end.p0(i64 128, ptr nonnull %before.i) #11
  call void @llvm.lifetime.end.p0(i64 128, ptr nonnull %all.i) #11
  call void @llvm.lifetime.end.p0(i64 56, ptr nonnull %attributes.i) #11
  %25 = load i32, ptr getelementptr inbounds nuw (i8, ptr @pool, i64 396), align 4
  %cond = call i32 @llvm.smin.i32(i32 %25, i32 %sub17)
  %add = add nsw i32 %cond, 1
  %26 = load i32, ptr @settings.1, align 4
  %mul = mul nsw i32 %add, %26
  %spec.store.select126 = call i32 @llvm.smin.i32(i32 %mul, i32 1023)
  %tobool24.not = icmp eq i32 %cond, 0
  br i1 %tobool24.not, label %if.then29, label %lor.lhs.false25

lor.lhs.false25:                                  ; preds = %start_helpers.exit
  %27 = load i32, ptr getelementptr inbounds nuw (i8, ptr @pool, i64 416), align 32
  %cmp26 = icmp ugt i32 %27, 3
  br i1 %cmp26, label %land.lhs.true27, label %if.end32

land.lhs.true27:                                  ; preds = %lor.lhs.false25
  %28 = load i32, ptr getelementptr inbounds nuw (i8, ptr @pool, i64 420), align 4
  %inc = add i32 %28, 1
  store i32 %inc, ptr getelementptr inbounds nuw (i8, ptr @pool, i64 420), align 4
  %rem = and i32 %inc, 60
  %cmp28.not = icmp eq i32 %rem, 0
  br i1 %cmp28.not, label %if.end32, label %if.then29

if.then29:                                        ; preds = %land.lhs.true27, %start_helpers.exit
  store atomic i32 0, ptr getelementptr inbounds nuw (i8, ptr @pool, i64 384) seq_cst, align 128
  call void @llvm.lifetime.start.p0(i64 16, ptr nonnull %group.i.i181) #11
  call void @llvm.memcpy.p0.p0.i64(ptr noundef nonnull align 8 dereferenceable(16) %group.i.i181, ptr noundef nonnull align 8 dereferenceable(16) @__const.alone.group, i64 16, i1 false)
  %29 = atomicrmw add ptr @launches, i64 1 monotonic, align 16
  %call.i.i182 = call i32 %f(i32 noundef 0, ptr noundef nonnull %group.i.i181, ptr noundef %closure) #11
  call void @llvm.lifetime.end.p0(i64 16, ptr nonnull %group.i.i181) #11
  call void @llvm.lifetime.start.p0(i64 16, ptr nonnull %t.i.i180) #11
  %call.i2.i183 = call i32 @clock_gettime(i32 noundef 1, ptr noundef nonnull %t.i.i180) #11
  %30 = load i64, ptr %t.i.i180, align 8
  %mul.i.i184 = mul nsw i64 %30, 1000000000
  %tv_nsec.i.i185 = getelementptr inbounds nuw i8, ptr %t.i.i180, i64 8
  %31 = load i64, ptr %tv_nsec.i.i185, align 8
  %add.i.i186 = add nsw i64 %mul.i.i184, %31
  call void @llvm.lifetime.end.p0(i64 16, ptr nonnull %t.i.i180) #11
  store atomic i64 %add.i.i186, ptr getelementptr inbounds nuw (i8, ptr @pool, i64 408) monotonic, align 8
  br label %return

if.end32:                                         ; preds = %land.lhs.true27, %lor.lhs.false25
  %32 = ptrtoint ptr %f to i64
  %div164 = lshr i64 %32, 4
  %rem33 = and i64 %div164, 63
  %arrayidx = getelementptr inbounds nuw [64 x i64], ptr getelementptr inbounds nuw (i8, ptr @pool, i64 424), i64 0, i64 %rem33
  call void @llvm.lifetime.start.p0(i64 16, ptr nonnull %t.i187) #11
  %call.i188 = call i32 @clock_gettime(i32 noundef 1, ptr noundef nonnull %t.i187) #11
  %33 = load i64, ptr %t.i187, align 8
  %mul.i189 = mul nsw i64 %33, 1000000000
  %tv_nsec.i190 = getelementptr inbounds nuw i8, ptr %t.i187, i64 8
  %34 = load i64, ptr %tv_nsec.i190, align 8
  %add.i191 = add nsw i64 %mul.i189, %34
  call void @llvm.lifetime.end.p0(i64 16, ptr nonnull %t.i187) #11
  %35 = load atomic i64, ptr getelementptr inbounds nuw (i8, ptr @pool, i64 408) monotonic, align 8
  %sub37 = sub nsw i64 %add.i191, %35
  %36 = load i64, ptr @settings.2, align 8
  %cmp38 = icmp slt i64 %sub37, %36
  %cond44 = select i1 %cmp38, i64 %36, i64 0
  store atomic i64 %cond44, ptr getelementptr inbounds nuw (i8, ptr @pool, i64 288) monotonic, align 32
  store atomic i64 %32, ptr getelementptr inbounds nuw (i8, ptr @pool, i64 256) monotonic, align 128
  %37 = ptrtoint ptr %closure to i64
  store atomic i64 %37, ptr getelementptr inbounds nuw (i8, ptr @pool, i64 264) monotonic, align 8
  store atomic i32 %spec.store.select126, ptr getelementptr inbounds nuw (i8, ptr @pool, i64 272) monotonic, align 16
  %call49 = call i32 @sched_getcpu() #11
  store atomic i32 %call49, ptr getelementptr inbounds nuw (i8, ptr @pool, i64 276) monotonic, align 4
  store atomic i32 0, ptr getelementptr inbounds nuw (i8, ptr @pool, i64 280) monotonic, align 8
  store atomic i32 0, ptr getelementptr inbounds nuw (i8, ptr @pool, i64 284) monotonic, align 4
  store atomic i32 0, ptr getelementptr inbounds nuw (i8, ptr @pool, i64 128) monotonic, align 128
  %38 = load atomic i64, ptr @pool seq_cst, align 128
  %conv55 = sext i32 %cond to i64
  %conv56 = sext i32 %spec.store.select126 to i64
  %shr.i = and i64 %38, -1073741824
  %shl.i = add i64 %shr.i, 1073741824
  %shl1.i = shl nsw i64 %conv55, 20
  %39 = or i64 %shl1.i, %shl.i
  %or2.i = or i64 %39, %conv56
  store atomic i64 %or2.i, ptr @pool seq_cst, align 128
  call void @llvm.lifetime.start.p0(i64 24, ptr nonnull %part) #11
  store i64 %add.i191, ptr %part, align 8
  %cpu = getelementptr inbounds nuw i8, ptr %part, i64 8
  br i1 %cmp38, label %cond.true62, label %lor.lhs.false59

lor.lhs.false59:                                  ; preds = %if.end32
  %40 = load i64, ptr %arrayidx, align 8
  %cmp60 = icmp sgt i64 %40, 100000
  br i1 %cmp60, label %cond.true62, label %cond.end65

cond.true62:                                      ; preds = %lor.lhs.false59, %if.end32
  call void @llvm.lifetime.start.p0(i64 16, ptr nonnull %t.i192) #11
  %call.i193 = call i32 @clock_gettime(i32 noundef 3, ptr noundef nonnull %t.i192) #11
  %tobool.not.i = icmp eq i32 %call.i193, 0
  br i1 %tobool.not.i, label %cond.false.i, label %cpu_time.exit

cond.false.i:                                     ; preds = %cond.true62
  %41 = load i64, ptr %t.i192, align 8
  %mul.i195 = mul nsw i64 %41, 1000000000
  %tv_nsec.i196 = getelementptr inbounds nuw i8, ptr %t.i192, i64 8
  %42 = load i64, ptr %tv_nsec.i196, align 8
  %add.i197 = add nsw i64 %mul.i195, %42
  br label %cpu_time.exit

cpu_time.exit:                                    ; preds = %cond.true62, %cond.false.i
  %cond.i194 = phi i64 [ %add.i197, %cond.false.i ], [ -1, %cond.true62 ]
  call void @llvm.lifetime.end.p0(i64 16, ptr nonnull %t.i192) #11
  br label %cond.end65

cond.end65:                                       ; preds = %lor.lhs.false59, %cpu_time.exit
  %cond66 = phi i64 [ %cond.i194, %cpu_time.exit ], [ 0, %lor.lhs.false59 ]
  store i64 %cond66, ptr %cpu, align 8
  %waking = getelementptr inbounds nuw i8, ptr %part, i64 16
  store i64 0, ptr %waking, align 8
  %call67 = call fastcc i32 @work(i32 noundef -1, ptr noundef %part)
  %43 = load i64, ptr %cpu, align 8
  %tobool69.not = icmp eq i64 %43, 0
  br i1 %tobool69.not, label %cond.false74, label %cond.true70

cond.true70:                                      ; preds = %cond.end65
  call void @llvm.lifetime.start.p0(i64 16, ptr nonnull %t.i198) #11
  %call.i199 = call i32 @clock_gettime(i32 noundef 3, ptr noundef nonnull %t.i198) #11
  %tobool.not.i200 = icmp eq i32 %call.i199, 0
  br i1 %tobool.not.i200, label %cond.false.i202, label %cpu_time.exit206

cond.false.i202:                                  ; preds = %cond.true70
  %44 = load i64, ptr %t.i198, align 8
  %mul.i203 = mul nsw i64 %44, 1000000000
  %tv_nsec.i204 = getelementptr inbounds nuw i8, ptr %t.i198, i64 8
  %45 = load i64, ptr %tv_nsec.i204, align 8
  %add.i205 = add nsw i64 %mul.i203, %45
  br label %cpu_time.exit206

cpu_time.exit206:                                 ; preds = %cond.true70, %cond.false.i202
  %cond.i201 = phi i64 [ %add.i205, %cond.false.i202 ], [ -1, %cond.true70 ]
  call void @llvm.lifetime.end.p0(i64 16, ptr nonnull %t.i198) #11
  %sub73 = sub nsw i64 %cond.i201, %43
  br label %cond.end77

cond.false74:                                     ; preds = %cond.end65
  call void @llvm.lifetime.start.p0(i64 16, ptr nonnull %t.i207) #11
  %call.i208 = call i32 @clock_gettime(i32 noundef 1, ptr noundef nonnull %t.i207) #11
  %46 = load i64, ptr %t.i207, align 8
  %mul.i209 = mul nsw i64 %46, 1000000000
  %tv_nsec.i210 = getelementptr inbounds nuw i8, ptr %t.i207, i64 8
  %47 = load i64, ptr %tv_nsec.i210, align 8
  call void @llvm.lifetime.end.p0(i64 16, ptr nonnull %t.i207) #11
  %add.i211 = sub i64 %47, %add.i191
  %sub76 = add i64 %add.i211, %mul.i209
  br label %cond.end77

cond.end77:                                       ; preds = %cond.false74, %cpu_time.exit206
  %cond78 = phi i64 [ %sub73, %cpu_time.exit206 ], [ %sub76, %cond.false74 ]
  %cmp79 = icmp slt i32 %call67, %spec.store.select126
  br i1 %cmp79, label %if.then81, label %if.else

if.then81:                                        ; preds = %cond.end77
  %sub82 = sub nsw i32 %spec.store.select126, %call67
  call fastcc void @wait_for(i32 noundef %sub82, i32 noundef %cond)
  br label %if.end92.sink.split

if.else:                                          ; preds = %cond.end77
  %48 = load atomic i32, ptr getelementptr inbounds nuw (i8, ptr @pool, i64 284) monotonic, align 4
  %tobool88.not = icmp eq i32 %48, 0
  br i1 %tobool88.not, label %if.end92, label %if.then89

if.then89:                                        ; preds = %if.else
  %49 = load i32, ptr getelementptr inbounds nuw (i8, ptr @pool, i64 416), align 32
  %inc90 = add i32 %49, 1
  br label %if.end92.sink.split

if.end92.sink.split:                              ; preds = %if.then81, %if.then89
  %inc90.sink = phi i32 [ %inc90, %if.then89 ], [ 0, %if.then81 ]
  store i32 %inc90.sink, ptr getelementptr inbounds nuw (i8, ptr @pool, i64 416), align 32
  br label %if.end92

if.end92:                                         ; preds = %if.end92.sink.split, %if.else
  %50 = load atomic i32, ptr getelementptr inbounds nuw (i8, ptr @pool, i64 280) seq_cst, align 8
  call void @llvm.lifetime.start.p0(i64 16, ptr nonnull %t.i212) #11
  %call.i213 = call i32 @clock_gettime(i32 noundef 1, ptr noundef nonnull %t.i212) #11
  %51 = load i64, ptr %t.i212, align 8
  %mul.i214 = mul nsw i64 %51, 1000000000
  %tv_nsec.i215 = getelementptr inbounds nuw i8, ptr %t.i212, i64 8
  %52 = load i64, ptr %tv_nsec.i215, align 8
  %add.i216 = add nsw i64 %mul.i214, %52
  call void @llvm.lifetime.end.p0(i64 16, ptr nonnull %t.i212) #11
  store atomic i64 %add.i216, ptr getelementptr inbounds nuw (i8, ptr @pool, i64 408) monotonic, align 8
  %53 = load atomic i32, ptr getelementptr inbounds nuw (i8, ptr @pool, i64 388) monotonic, align 4
  %tobool98.not = icmp eq i32 %53, 0
  br i1 %tobool98.not, label %if.end102, label %if.then99

if.then99:                                        ; preds = %if.end92
  %sub101 = add nsw i32 %53, -1
  store atomic i32 %sub101, ptr getelementptr inbounds nuw (i8, ptr @pool, i64 388) monotonic, align 4
  br label %if.end102

if.end102:                                        ; preds = %if.then99, %if.end92
  %tobool103.not = icmp eq i32 %call67, 0
  br i1 %tobool103.not, label %if.end120, label %if.then104

if.then104:                                       ; preds = %if.end102
  %54 = load i64, ptr %waking, align 8
  %sub106 = sub nsw i64 %cond78, %54
  %mul108 = mul nsw i64 %sub106, %conv56
  %conv109 = sext i32 %call67 to i64
  %div110 = sdiv i64 %mul108, %conv109
  store i64 %div110, ptr %arrayidx, align 8
  %cond113.neg = select i1 %tobool98.not, i64 0, i64 -100000
  %mul117 = mul nsw i64 %cond78, %conv56
  %div119 = sdiv i64 %mul117, %conv109
  %div.neg.i218 = sdiv i64 %div119, -8
  %55 = add i64 %add.i216, %cond113.neg
  %56 = add i64 %add.i191, %div119
  %sub.i217 = sub i64 %55, %56
  %sub1.i = add i64 %sub.i217, %div.neg.i218
  %cmp.i219 = icmp slt i64 %sub1.i, 2000
  br i1 %cmp.i219, label %if.end120, label %if.end.i220

if.end.i220:                                      ; preds = %if.then104
  %57 = load atomic i64, ptr getelementptr inbounds nuw (i8, ptr @pool, i64 936) monotonic, align 8
  %add.i221 = add nsw i64 %57, %sub1.i
  %cond.i222 = call i64 @llvm.smin.i64(i64 %add.i221, i64 20000000)
  store atomic i64 %cond.i222, ptr getelementptr inbounds nuw (i8, ptr @pool, i64 936) monotonic, align 8
  br label %if.end120

if.end120:                                        ; preds = %if.end.i220, %if.then104, %if.end102
  %58 = atomicrmw add ptr getelementptr inbounds nuw (i8, ptr @launches, i64 8), i64 1 monotonic, align 8
  store atomic i32 0, ptr getelementptr inbounds nuw (i8, ptr @pool, i64 384) seq_cst, align 128
  %tobool.not.i223 = icmp eq i32 %50, 0
  br i1 %tobool.not.i223, label %elsewhere.exit, label %if.then.i

if.then.i:                                        ; preds = %if.end120
  call void @TVMFFIErrorSetRaisedFromCStr(ptr noundef nonnull @.str, ptr noundef nonnull @.str.1) #11
  br label %elsewhere.exit

elsewhere.exit:                                   ; preds = %if.end120, %if.then.i
  call void @llvm.lifetime.end.p0(i64 24, ptr nonnull %part) #11
  br label %return

return:                                           ; preds = %if.then29, %elsewhere.exit, %if.then11, %if.then
  %retval.1 = phi i32 [ %call.i.i, %if.then ], [ %call.i173, %if.then11 ], [ %call.i.i182, %if.then29 ], [ %50, %elsewhere.exit ]
  ret i32 %retval.1
}

; Function Attrs: mustprogress nocallback nofree nounwind willreturn memory(argmem: readwrite)
declare void @llvm.memcpy.p0.p0.i64(ptr noalias nocapture writeonly, ptr noalias nocapture readonly, i64, i1 immarg) #6

; Function Attrs: mustprogress nocallback nofree nounwind willreturn memory(argmem: write)
declare void @llvm.memset.p0.i64(ptr nocapture writeonly, i8, i64, i1 immarg) #7

; Function Attrs: nounwind uwtable
define internal void @member(ptr nocapture noundef %data) #0 {
entry:
  %t.i = alloca %struct.timespec, align 8
  %group = alloca %struct.Group, align 8
  %0 = load ptr, ptr @openmp.1, align 8
  %call = tail call i32 %0() #11
  call void @llvm.lifetime.start.p0(i64 16, ptr nonnull %group) #11
  store ptr null, ptr %group, align 8
  %num_task = getelementptr inbounds nuw i8, ptr %group, i64 8
  %1 = load ptr, ptr @openmp.2, align 8
  %call1 = tail call i32 %1() #11
  store i32 %call1, ptr %num_task, align 8
  %2 = getelementptr inbounds nuw i8, ptr %group, i64 12
  store i32 0, ptr %2, align 4
  %tobool.not = icmp eq i32 %call, 0
  br i1 %tobool.not, label %if.then, label %if.else

if.then:                                          ; preds = %entry
  %caller = getelementptr inbounds nuw i8, ptr %data, i64 16
  %3 = load ptr, ptr %caller, align 8
  %members = getelementptr inbounds nuw i8, ptr %3, i64 8
  store i32 %call1, ptr %members, align 8
  br label %if.end13

if.else:                                          ; preds = %entry
  %cmp = icmp slt i32 %call, 5
  br i1 %cmp, label %land.lhs.true, label %if.end13

land.lhs.true:                                    ; preds = %if.else
  %call3 = tail call i64 @pthread_self() #15
  %caller4 = getelementptr inbounds nuw i8, ptr %data, i64 16
  %4 = load ptr, ptr %caller4, align 8
  %clocks = getelementptr inbounds nuw i8, ptr %4, i64 12
  %sub = add nsw i32 %call, -1
  %idxprom = sext i32 %sub to i64
  %arrayidx = getelementptr inbounds [4 x i32], ptr %clocks, i64 0, i64 %idxprom
  %call5 = tail call i32 @pthread_getcpuclockid(i64 noundef %call3, ptr noundef nonnull %arrayidx) #11
  %tobool6.not = icmp eq i32 %call5, 0
  br i1 %tobool6.not, label %if.end13, label %if.then7

if.then7:                                         ; preds = %land.lhs.true
  %5 = load ptr, ptr %caller4, align 8
  %clocks9 = getelementptr inbounds nuw i8, ptr %5, i64 12
  %arrayidx12 = getelementptr inbounds [4 x i32], ptr %clocks9, i64 0, i64 %idxprom
  store i32 -1, ptr %arrayidx12, align 4
  br label %if.end13

if.end13:                                         ; preds = %if.else, %land.lhs.true, %if.then7, %if.then
  %6 = load ptr, ptr %data, align 8
  %closure = getelementptr inbounds nuw i8, ptr %data, i64 8
  %7 = load ptr, ptr %closure, align 8
  %call14 = call i32 %6(i32 noundef %call, ptr noundef nonnull %group, ptr noundef %7) #11
  %tobool15.not = icmp eq i32 %call14, 0
  br i1 %tobool15.not, label %if.end18, label %if.then16

if.then16:                                        ; preds = %if.end13
  %status17 = getelementptr inbounds nuw i8, ptr %data, i64 32
  store atomic i32 %call14, ptr %status17 seq_cst, align 8
  br label %if.end18

if.end18:                                         ; preds = %if.then16, %if.end13
  br i1 %tobool.not, label %if.then20, label %if.end24

if.then20:                                        ; preds = %if.end18
  call void @llvm.lifetime.start.p0(i64 16, ptr nonnull %t.i) #11
  %call.i = call i32 @clock_gettime(i32 noundef 3, ptr noundef nonnull %t.i) #11
  %tobool.not.i = icmp eq i32 %call.i, 0
  br i1 %tobool.not.i, label %cond.false.i, label %cpu_time.exit

cond.false.i:                                     ; preds = %if.then20
  %8 = load i64, ptr %t.i, align 8
  %mul.i = mul nsw i64 %8, 1000000000
  %tv_nsec.i = getelementptr inbounds nuw i8, ptr %t.i, i64 8
  %9 = load i64, ptr %tv_nsec.i, align 8
  %add.i = add nsw i64 %mul.i, %9
  br label %cpu_time.exit

cpu_time.exit:                                    ; preds = %if.then20, %cond.false.i
  %cond.i = phi i64 [ %add.i, %cond.false.i ], [ -1, %if.then20 ]
  call void @llvm.lifetime.end.p0(i64 16, ptr nonnull %t.i) #11
  %cpu = getelementptr inbounds nuw i8, ptr %data, i64 24
  %10 = load i64, ptr %cpu, align 8
  %sub22 = sub nsw i64 %cond.i, %10
  store i64 %sub22, ptr %cpu, align 8
  br label %if.end24

if.end24:                                         ; preds = %cpu_time.exit, %if.end18
  call void @llvm.lifetime.end.p0(i64 16, ptr nonnull %group) #11
  ret void
}

; Function Attrs: nounwind
declare i32 @clock_gettime(i32 noundef, ptr noundef) local_unnamed_addr #1

; Function Attrs: nounwind
declare i32 @pthread_getcpuclockid(i64 noundef, ptr noundef) local_unnamed_addr #1

; Function Attrs: mustprogress nofree nosync nounwind willreturn memory(none)
declare i64 @pthread_self() local_unnamed_addr #8

declare void @TVMFFIErrorSetRaisedFromCStr(ptr noundef, ptr noundef) local_unnamed_addr #9

; Function Attrs: nounwind
declare i32 @sched_getcpu() local_unnamed_addr #1

; Function Attrs: nounwind uwtable
define internal fastcc i32 @work(i32 noundef %self, ptr nocapture noundef nonnull %part) unnamed_addr #0 {
entry:
  %t.i105 = alloca %struct.timespec, align 8
  %others.i.i = alloca %struct.cpu_set_t, align 8
  %t.i98 = alloca %struct.timespec, align 8
  %t.i93 = alloca %struct.timespec, align 8
  %t.i = alloca %struct.timespec, align 8
  %group = alloca %struct.Group, align 8
  %0 = load atomic i64, ptr @pool seq_cst, align 128
  %shr.i.i117 = lshr i64 %0, 10
  %and.i.i118 = and i64 %shr.i.i117, 1023
  %and.i3.i119 = and i64 %0, 1023
  %cmp.i.not120 = icmp samesign ult i64 %and.i.i118, %and.i3.i119
  br i1 %cmp.i.not120, label %lor.lhs.false.lr.ph, label %cleanup64

lor.lhs.false.lr.ph:                              ; preds = %entry
  %num_task = getelementptr inbounds nuw i8, ptr %group, i64 8
  %1 = getelementptr inbounds nuw i8, ptr %group, i64 12
  %cmp6 = icmp slt i32 %self, 0
  %cond.v = select i1 %cmp6, i64 1024, i64 -1
  %cpu = getelementptr inbounds nuw i8, ptr %part, i64 8
  %tv_nsec.i = getelementptr inbounds nuw i8, ptr %t.i, i64 8
  %tv_nsec.i96 = getelementptr inbounds nuw i8, ptr %t.i93, i64 8
  %tv_nsec.i101 = getelementptr inbounds nuw i8, ptr %t.i98, i64 8
  %tv_nsec.i108 = getelementptr inbounds nuw i8, ptr %t.i105, i64 8
  %waking = getelementptr inbounds nuw i8, ptr %part, i64 16
  br label %lor.lhs.false

lor.lhs.false:                                    ; preds = %lor.lhs.false.lr.ph, %cleanup63
  %2 = phi i64 [ %0, %lor.lhs.false.lr.ph ], [ %47, %cleanup63 ]
  %did.0121 = phi i32 [ 0, %lor.lhs.false.lr.ph ], [ %did.1, %cleanup63 ]
  %3 = trunc i64 %2 to i32
  %4 = lshr i32 %3, 20
  %conv = and i32 %4, 1023
  %cmp.not = icmp slt i32 %self, %conv
  br i1 %cmp.not, label %if.end, label %cleanup64

if.end:                                           ; preds = %lor.lhs.false
  %5 = load atomic i64, ptr getelementptr inbounds nuw (i8, ptr @pool, i64 256) monotonic, align 128
  %6 = inttoptr i64 %5 to ptr
  %7 = load atomic i64, ptr getelementptr inbounds nuw (i8, ptr @pool, i64 264) monotonic, align 8
  %8 = inttoptr i64 %7 to ptr
  call void @llvm.lifetime.start.p0(i64 16, ptr nonnull %group) #11
  store ptr null, ptr %group, align 8
  %9 = load atomic i32, ptr getelementptr inbounds nuw (i8, ptr @pool, i64 272) monotonic, align 16
  store i32 %9, ptr %num_task, align 8
  store i32 0, ptr %1, align 4
  %cond = add i64 %2, %cond.v
  %10 = cmpxchg weak ptr @pool, i64 %2, i64 %cond seq_cst seq_cst, align 128
  %11 = extractvalue { i64, i1 } %10, 1
  br i1 %11, label %if.end9, label %cleanup63

if.end9:                                          ; preds = %if.end
  %and.i88 = and i64 %cond, 1023
  %shr.i89 = lshr i64 %cond, 10
  %and.i90 = and i64 %shr.i89, 1023
  %sub12 = sub nsw i64 %and.i88, %and.i90
  %cmp13 = icmp sgt i64 %sub12, 0
  br i1 %cmp13, label %land.rhs, label %if.end45

land.rhs:                                         ; preds = %if.end9
  %12 = load atomic i32, ptr getelementptr inbounds nuw (i8, ptr @pool, i64 284) monotonic, align 4
  %conv16 = zext i32 %12 to i64
  %shr.i91 = lshr i64 %cond, 20
  %and.i92 = and i64 %shr.i91, 1023
  %cmp18 = icmp samesign ugt i64 %and.i92, %conv16
  br i1 %cmp18, label %land.lhs.true, label %if.end45

land.lhs.true:                                    ; preds = %land.rhs
  %13 = load i64, ptr %cpu, align 8
  %tobool21.not = icmp eq i64 %13, 0
  br i1 %tobool21.not, label %lor.lhs.false22, label %if.then31

lor.lhs.false22:                                  ; preds = %land.lhs.true
  %tobool23.not = icmp eq i32 %did.0121, 0
  br i1 %tobool23.not, label %if.end45, label %land.lhs.true24

land.lhs.true24:                                  ; preds = %lor.lhs.false22
  call void @llvm.lifetime.start.p0(i64 16, ptr nonnull %t.i) #11
  %call.i = call i32 @clock_gettime(i32 noundef 1, ptr noundef nonnull %t.i) #11
  %14 = load i64, ptr %t.i, align 8
  %mul.i = mul nsw i64 %14, 1000000000
  %15 = load i64, ptr %tv_nsec.i, align 8
  %add.i = add nsw i64 %mul.i, %15
  call void @llvm.lifetime.end.p0(i64 16, ptr nonnull %t.i) #11
  %16 = load i64, ptr %part, align 8
  %sub26 = sub i64 %add.i, %16
  %mul = mul nsw i64 %sub26, %sub12
  %mul27 = mul nsw i32 %did.0121, 100000
  %conv28 = sext i32 %mul27 to i64
  %cmp29 = icmp sgt i64 %mul, %conv28
  br i1 %cmp29, label %if.then31, label %if.end45

if.then31:                                        ; preds = %land.lhs.true24, %land.lhs.true
  call void @llvm.lifetime.start.p0(i64 16, ptr nonnull %t.i93) #11
  %call.i94 = call i32 @clock_gettime(i32 noundef 1, ptr noundef nonnull %t.i93) #11
  %17 = load i64, ptr %t.i93, align 8
  %mul.i95.neg = mul i64 %17, -1000000000
  %18 = load i64, ptr %tv_nsec.i96, align 8
  %add.i97.neg124 = sub i64 %mul.i95.neg, %18
  call void @llvm.lifetime.end.p0(i64 16, ptr nonnull %t.i93) #11
  %19 = load i64, ptr %cpu, align 8
  %tobool34.not = icmp eq i64 %19, 0
  br i1 %tobool34.not, label %if.then35, label %if.end41

if.then35:                                        ; preds = %if.then31
  call void @llvm.lifetime.start.p0(i64 16, ptr nonnull %t.i98) #11
  %call.i99 = call i32 @clock_gettime(i32 noundef 3, ptr noundef nonnull %t.i98) #11
  %tobool.not.i = icmp eq i32 %call.i99, 0
  br i1 %tobool.not.i, label %cond.false.i, label %cpu_time.exit

cond.false.i:                                     ; preds = %if.then35
  %20 = load i64, ptr %t.i98, align 8
  %mul.i100 = mul nsw i64 %20, 1000000000
  %21 = load i64, ptr %tv_nsec.i101, align 8
  %add.i102 = add nsw i64 %mul.i100, %21
  br label %cpu_time.exit

cpu_time.exit:                                    ; preds = %if.then35, %cond.false.i
  %cond.i = phi i64 [ %add.i102, %cond.false.i ], [ -1, %if.then35 ]
  call void @llvm.lifetime.end.p0(i64 16, ptr nonnull %t.i98) #11
  %22 = load i64, ptr %part, align 8
  %sub38.neg = add i64 %cond.i, %add.i97.neg124
  %sub39 = add i64 %sub38.neg, %22
  store i64 %sub39, ptr %cpu, align 8
  br label %if.end41

if.end41:                                         ; preds = %cpu_time.exit, %if.then31
  %23 = trunc nuw nsw i64 %and.i92 to i32
  %24 = load atomic i32, ptr getelementptr inbounds nuw (i8, ptr @pool, i64 284) monotonic, align 4
  %cmp1.not.i = icmp ult i32 %24, %23
  br i1 %cmp1.not.i, label %if.end.i, label %wake_two.exit

if.end.i:                                         ; preds = %if.end41
  %25 = atomicrmw add ptr getelementptr inbounds nuw (i8, ptr @pool, i64 284), i32 1 monotonic, align 4
  %conv4.i = zext i32 %25 to i64
  %cmp6.not.i = icmp samesign ugt i64 %and.i92, %conv4.i
  br i1 %cmp6.not.i, label %if.end9.i, label %wake_two.exit

if.end9.i:                                        ; preds = %if.end.i
  %arrayidx.i = getelementptr inbounds nuw [511 x %struct.Helper], ptr getelementptr inbounds nuw (i8, ptr @pool, i64 1024), i64 0, i64 %conv4.i
  %26 = load atomic i32, ptr %arrayidx.i seq_cst, align 128
  %tobool.not.i.i = icmp eq i32 %26, 0
  br i1 %tobool.not.i.i, label %wake.exit.i, label %lor.lhs.false.i.i

lor.lhs.false.i.i:                                ; preds = %if.end9.i
  %27 = atomicrmw xchg ptr %arrayidx.i, i32 0 seq_cst, align 128
  %tobool3.not.i.i = icmp eq i32 %27, 0
  br i1 %tobool3.not.i.i, label %wake.exit.i, label %if.end.i.i

if.end.i.i:                                       ; preds = %lor.lhs.false.i.i
  %held.i.i.i = getelementptr inbounds nuw i8, ptr %arrayidx.i, i64 8
  %28 = atomicrmw xchg ptr %held.i.i.i, i32 1 seq_cst, align 8
  %tobool.not.i.i.i = icmp eq i32 %28, 0
  br i1 %tobool.not.i.i.i, label %if.end.i.i.i, label %if.end18.critedge.i.i

if.end.i.i.i:                                     ; preds = %if.end.i.i
  %thread.i.i.i = getelementptr inbounds nuw i8, ptr %arrayidx.i, i64 144
  %29 = load i32, ptr %thread.i.i.i, align 16
  %given.i.i.i = getelementptr inbounds nuw i8, ptr %arrayidx.i, i64 16
  %call.i.i.i = call i32 @sched_getaffinity(i32 noundef %29, i64 noundef 128, ptr noundef nonnull %given.i.i.i) #11
  %tobool1.not.i.i.i = icmp eq i32 %call.i.i.i, 0
  br i1 %tobool1.not.i.i.i, label %if.then5.i.i, label %if.end3.i.i.i

if.end3.i.i.i:                                    ; preds = %if.end.i.i.i
  store atomic i32 0, ptr %held.i.i.i seq_cst, align 8
  br label %if.end18.critedge.i.i

if.then5.i.i:                                     ; preds = %if.end.i.i.i
  call void @llvm.lifetime.start.p0(i64 128, ptr nonnull %others.i.i) #11
  call void @llvm.memcpy.p0.p0.i64(ptr noundef nonnull align 8 dereferenceable(128) %others.i.i, ptr noundef nonnull align 16 dereferenceable(128) %given.i.i.i, i64 128, i1 false)
  %30 = load atomic i32, ptr getelementptr inbounds nuw (i8, ptr @pool, i64 276) monotonic, align 4
  %cmp.i.i = icmp ult i32 %30, 1024
  br i1 %cmp.i.i, label %cond.true.i.i, label %cond.end.i.i

cond.true.i.i:                                    ; preds = %if.then5.i.i
  %conv.i.i = zext nneg i32 %30 to i64
  %rem.i.i = and i64 %conv.i.i, 63
  %shl.i.i = shl nuw i64 1, %rem.i.i
  %not.i.i = xor i64 %shl.i.i, -1
  %div829.i.i = lshr i64 %conv.i.i, 6
  %arrayidx.i.i = getelementptr inbounds nuw i64, ptr %others.i.i, i64 %div829.i.i
  %31 = load i64, ptr %arrayidx.i.i, align 8
  %and.i18.i = and i64 %31, %not.i.i
  store i64 %and.i18.i, ptr %arrayidx.i.i, align 8
  br label %cond.end.i.i

cond.end.i.i:                                     ; preds = %cond.true.i.i, %if.then5.i.i
  %call9.i.i = call i32 @__sched_cpucount(i64 noundef 128, ptr noundef nonnull %others.i.i) #11
  %tobool10.not.i.i = icmp eq i32 %call9.i.i, 0
  br i1 %tobool10.not.i.i, label %if.then17.i.i, label %if.then11.i.i

if.then11.i.i:                                    ; preds = %cond.end.i.i
  %32 = load i32, ptr %thread.i.i.i, align 16
  %call12.i.i = call i32 @sched_setaffinity(i32 noundef %32, i64 noundef 128, ptr noundef nonnull %others.i.i) #11
  br label %if.then17.i.i

if.then17.i.i:                                    ; preds = %if.then11.i.i, %cond.end.i.i
  call void @llvm.lifetime.end.p0(i64 128, ptr nonnull %others.i.i) #11
  %call.i30.i.i = call i64 (i64, ...) @syscall(i64 noundef 202, ptr noundef nonnull %arrayidx.i, i32 noundef 129, i32 noundef 1, ptr noundef null, ptr noundef null, i32 noundef 0) #11
  %33 = load i32, ptr %thread.i.i.i, align 16
  %call.i33.i.i = call i32 @sched_setaffinity(i32 noundef %33, i64 noundef 128, ptr noundef nonnull %given.i.i.i) #11
  store atomic i32 0, ptr %held.i.i.i seq_cst, align 8
  br label %wake.exit.i

if.end18.critedge.i.i:                            ; preds = %if.end3.i.i.i, %if.end.i.i
  %call.i35.i.i = call i64 (i64, ...) @syscall(i64 noundef 202, ptr noundef nonnull %arrayidx.i, i32 noundef 129, i32 noundef 1, ptr noundef null, ptr noundef null, i32 noundef 0) #11
  br label %wake.exit.i

wake.exit.i:                                      ; preds = %if.end18.critedge.i.i, %if.then17.i.i, %lor.lhs.false.i.i, %if.end9.i
  %34 = load atomic i32, ptr getelementptr inbounds nuw (i8, ptr @pool, i64 284) monotonic, align 4
  %cmp1.not.1.i = icmp ult i32 %34, %23
  br i1 %cmp1.not.1.i, label %if.end.1.i, label %wake_two.exit

if.end.1.i:                                       ; preds = %wake.exit.i
  %35 = atomicrmw add ptr getelementptr inbounds nuw (i8, ptr @pool, i64 284), i32 1 monotonic, align 4
  %conv4.1.i = zext i32 %35 to i64
  %cmp6.not.1.i = icmp samesign ugt i64 %and.i92, %conv4.1.i
  br i1 %cmp6.not.1.i, label %if.end9.1.i, label %wake_two.exit

if.end9.1.i:                                      ; preds = %if.end.1.i
  %arrayidx.1.i = getelementptr inbounds nuw [511 x %struct.Helper], ptr getelementptr inbounds nuw (i8, ptr @pool, i64 1024), i64 0, i64 %conv4.1.i
  %36 = load atomic i32, ptr %arrayidx.1.i seq_cst, align 128
  %tobool.not.i.1.i = icmp eq i32 %36, 0
  br i1 %tobool.not.i.1.i, label %wake_two.exit, label %lor.lhs.false.i.1.i

lor.lhs.false.i.1.i:                              ; preds = %if.end9.1.i
  %37 = atomicrmw xchg ptr %arrayidx.1.i, i32 0 seq_cst, align 128
  %tobool3.not.i.1.i = icmp eq i32 %37, 0
  br i1 %tobool3.not.i.1.i, label %wake_two.exit, label %if.end.i.1.i

if.end.i.1.i:                                     ; preds = %lor.lhs.false.i.1.i
  %held.i.i.1.i = getelementptr inbounds nuw i8, ptr %arrayidx.1.i, i64 8
  %38 = atomicrmw xchg ptr %held.i.i.1.i, i32 1 seq_cst, align 8
  %tobool.not.i.i.1.i = icmp eq i32 %38, 0
  br i1 %tobool.not.i.i.1.i, label %if.end.i.i.1.i, label %if.end18.critedge.i.1.i

if.end.i.i.1.i:                                   ; preds = %if.end.i.1.i
  %thread.i.i.1.i = getelementptr inbounds nuw i8, ptr %arrayidx.1.i, i64 144
  %39 = load i32, ptr %thread.i.i.1.i, align 16
  %given.i.i.1.i = getelementptr inbounds nuw i8, ptr %arrayidx.1.i, i64 16
  %call.i.i.1.i = call i32 @sched_getaffinity(i32 noundef %39, i64 noundef 128, ptr noundef nonnull %given.i.i.1.i) #11
  %tobool1.not.i.i.1.i = icmp eq i32 %call.i.i.1.i, 0
  br i1 %tobool1.not.i.i.1.i, label %if.then5.i.1.i, label %if.end3.i.i.1.i

if.end3.i.i.1.i:                                  ; preds = %if.end.i.i.1.i
  store atomic i32 0, ptr %held.i.i.1.i seq_cst, align 8
  br label %if.end18.critedge.i.1.i

if.end18.critedge.i.1.i:                          ; preds = %if.end3.i.i.1.i, %if.end.i.1.i
  %call.i35.i.1.i = call i64 (i64, ...) @syscall(i64 noundef 202, ptr noundef nonnull %arrayidx.1.i, i32 noundef 129, i32 noundef 1, ptr noundef null, ptr noundef null, i32 noundef 0) #11
  br label %wake_two.exit

if.then5.i.1.i:                                   ; preds = %if.end.i.i.1.i
  call void @llvm.lifetime.start.p0(i64 128, ptr nonnull %others.i.i) #11
  call void @llvm.memcpy.p0.p0.i64(ptr noundef nonnull align 8 dereferenceable(128) %others.i.i, ptr noundef nonnull align 16 dereferenceable(128) %given.i.i.1.i, i64 128, i1 false)
  %40 = load atomic i32, ptr getelementptr inbounds nuw (i8, ptr @pool, i64 276) monotonic, align 4
  %cmp.i.1.i = icmp ult i32 %40, 1024
  br i1 %cmp.i.1.i, label %cond.true.i.1.i, label %cond.end.i.1.i

cond.true.i.1.i:                                  ; preds = %if.then5.i.1.i
  %conv.i.1.i = zext nneg i32 %40 to i64
  %rem.i.1.i = and i64 %conv.i.1.i, 63
  %shl.i.1.i = shl nuw i64 1, %rem.i.1.i
  %not.i.1.i = xor i64 %shl.i.1.i, -1
  %div829.i.1.i = lshr i64 %conv.i.1.i, 6
  %arrayidx.i.1.i = getelementptr inbounds nuw i64, ptr %others.i.i, i64 %div829.i.1.i
  %41 = load i64, ptr %arrayidx.i.1.i, align 8
  %and.i18.1.i = and i64 %41, %not.i.1.i
  store i64 %and.i18.1.i, ptr %arrayidx.i.1.i, align 8
  br label %cond.end.i.1.i

cond.end.i.1.i:                                   ; preds = %cond.true.i.1.i, %if.then5.i.1.i
  %call9.i.1.i = call i32 @__sched_cpucount(i64 noundef 128, ptr noundef nonnull %others.i.i) #11
  %tobool10.not.i.1.i = icmp eq i32 %call9.i.1.i, 0
  br i1 %tobool10.not.i.1.i, label %if.then17.i.1.i, label %if.then11.i.1.i

if.then11.i.1.i:                                  ; preds = %cond.end.i.1.i
  %42 = load i32, ptr %thread.i.i.1.i, align 16
  %call12.i.1.i = call i32 @sched_setaffinity(i32 noundef %42, i64 noundef 128, ptr noundef nonnull %others.i.i) #11
  br label %if.then17.i.1.i

if.then17.i.1.i:                                  ; preds = %if.then11.i.1.i, %cond.end.i.1.i
  call void @llvm.lifetime.end.p0(i64 128, ptr nonnull %others.i.i) #11
  %call.i30.i.1.i = call i64 (i64, ...) @syscall(i64 noundef 202, ptr noundef nonnull %arrayidx.1.i, i32 noundef 129, i32 noundef 1, ptr noundef null, ptr noundef null, i32 noundef 0) #11
  %43 = load i32, ptr %thread.i.i.1.i, align 16
  %call.i33.i.1.i = call i32 @sched_setaffinity(i32 noundef %43, i64 noundef 128, ptr noundef nonnull %given.i.i.1.i) #11
  store atomic i32 0, ptr %held.i.i.1.i seq_cst, align 8
  br label %wake_two.exit

wake_two.exit:                                    ; preds = %if.end41, %if.end.i, %wake.exit.i, %if.end.1.i, %if.end9.1.i, %lor.lhs.false.i.1.i, %if.end18.critedge.i.1.i, %if.then17.i.1.i
  call void @llvm.lifetime.start.p0(i64 16, ptr nonnull %t.i105) #11
  %call.i106 = call i32 @clock_gettime(i32 noundef 1, ptr noundef nonnull %t.i105) #11
  %44 = load i64, ptr %t.i105, align 8
  %mul.i107 = mul nsw i64 %44, 1000000000
  %45 = load i64, ptr %tv_nsec.i108, align 8
  call void @llvm.lifetime.end.p0(i64 16, ptr nonnull %t.i105) #11
  %46 = load i64, ptr %waking, align 8
  %add.i109 = add i64 %45, %add.i97.neg124
  %sub43 = add i64 %add.i109, %mul.i107
  %add44 = add nsw i64 %sub43, %46
  store i64 %add44, ptr %waking, align 8
  br label %if.end45

if.end45:                                         ; preds = %if.end9, %wake_two.exit, %land.lhs.true24, %lor.lhs.false22, %land.rhs
  %shr.i110 = lshr i64 %2, 10
  %and.i111 = and i64 %shr.i110, 1023
  %cond53 = select i1 %cmp6, i64 %and.i111, i64 %and.i88
  %conv54 = trunc nuw nsw i64 %cond53 to i32
  %call55 = call i32 %6(i32 noundef %conv54, ptr noundef nonnull %group, ptr noundef %8) #11
  %tobool56.not = icmp eq i32 %call55, 0
  br i1 %tobool56.not, label %if.end59, label %if.then57

if.then57:                                        ; preds = %if.end45
  store atomic i32 %call55, ptr getelementptr inbounds nuw (i8, ptr @pool, i64 280) seq_cst, align 8
  br label %if.end59

if.end59:                                         ; preds = %if.then57, %if.end45
  %inc = add nsw i32 %did.0121, 1
  br label %cleanup63

cleanup63:                                        ; preds = %if.end59, %if.end
  %did.1 = phi i32 [ %inc, %if.end59 ], [ %did.0121, %if.end ]
  call void @llvm.lifetime.end.p0(i64 16, ptr nonnull %group) #11
  %47 = load atomic i64, ptr @pool seq_cst, align 128
  %shr.i.i = lshr i64 %47, 10
  %and.i.i = and i64 %shr.i.i, 1023
  %and.i3.i = and i64 %47, 1023
  %cmp.i.not = icmp samesign ult i64 %and.i.i, %and.i3.i
  br i1 %cmp.i.not, label %lor.lhs.false, label %cleanup64

cleanup64:                                        ; preds = %cleanup63, %lor.lhs.false, %entry
  %did.0.lcssa = phi i32 [ 0, %entry ], [ %did.0121, %lor.lhs.false ], [ %did.1, %cleanup63 ]
  ret i32 %did.0.lcssa
}

; Function Attrs: nounwind uwtable
define internal fastcc void @wait_for(i32 noundef %shares, i32 noundef range(i32 1, 0) %helpers) unnamed_addr #0 {
entry:
  %most.i = alloca %struct.timespec, align 8
  %t.i33.i.i = alloca %struct.timespec, align 8
  %t.i.i.i = alloca %struct.timespec, align 8
  %here.i = alloca %struct.cpu_set_t, align 8
  %t.i42 = alloca %struct.timespec, align 8
  %t.i = alloca %struct.timespec, align 8
  %moved = alloca [8 x i64], align 16
  call void @llvm.lifetime.start.p0(i64 64, ptr nonnull %moved) #11
  call void @llvm.memset.p0.i64(ptr noundef nonnull align 16 dereferenceable(64) %moved, i8 0, i64 64, i1 false)
  call void @llvm.lifetime.start.p0(i64 16, ptr nonnull %t.i) #11
  %call.i = call i32 @clock_gettime(i32 noundef 1, ptr noundef nonnull %t.i) #11
  %0 = load i64, ptr %t.i, align 8
  %mul.i = mul nsw i64 %0, 1000000000
  %tv_nsec.i = getelementptr inbounds nuw i8, ptr %t.i, i64 8
  %1 = load i64, ptr %tv_nsec.i, align 8
  %add.i = add nsw i64 %mul.i, %1
  call void @llvm.lifetime.end.p0(i64 16, ptr nonnull %t.i) #11
  %tv_nsec.i45 = getelementptr inbounds nuw i8, ptr %t.i42, i64 8
  %cmp348.i = icmp sgt i32 %helpers, 0
  %tv_nsec.i.i.i = getelementptr inbounds nuw i8, ptr %t.i.i.i, i64 8
  %tv_nsec.i39.i.i = getelementptr inbounds nuw i8, ptr %t.i33.i.i, i64 8
  %wide.trip.count.i = zext i32 %helpers to i64
  %tv_nsec.i48 = getelementptr inbounds nuw i8, ptr %most.i, i64 8
  br label %for.cond.outer

for.cond.outer:                                   ; preds = %for.cond.outer.backedge, %entry
  %asked.0.ph = phi i64 [ %add.i, %entry ], [ %add.i46, %for.cond.outer.backedge ]
  br label %for.cond

for.cond:                                         ; preds = %for.cond.outer, %for.body4.preheader
  %2 = load atomic i32, ptr getelementptr inbounds nuw (i8, ptr @pool, i64 128) seq_cst, align 128
  %cmp.not = icmp eq i32 %2, %shares
  br i1 %cmp.not, label %for.cond.cleanup, label %for.body4.preheader

for.body4.preheader:                              ; preds = %for.cond
  call void @llvm.x86.sse2.pause()
  call void @llvm.x86.sse2.pause()
  call void @llvm.x86.sse2.pause()
  call void @llvm.x86.sse2.pause()
  call void @llvm.x86.sse2.pause()
  call void @llvm.x86.sse2.pause()
  call void @llvm.x86.sse2.pause()
  call void @llvm.x86.sse2.pause()
  call void @llvm.lifetime.start.p0(i64 16, ptr nonnull %t.i42) #11
  %call.i43 = call i32 @clock_gettime(i32 noundef 1, ptr noundef nonnull %t.i42) #11
  %3 = load i64, ptr %t.i42, align 8
  %mul.i44 = mul nsw i64 %3, 1000000000
  %4 = load i64, ptr %tv_nsec.i45, align 8
  %add.i46 = add nsw i64 %mul.i44, %4
  call void @llvm.lifetime.end.p0(i64 16, ptr nonnull %t.i42) #11
  %sub = sub nsw i64 %add.i46, %asked.0.ph
  %cmp6 = icmp slt i64 %sub, 10000
  br i1 %cmp6, label %for.cond, label %if.end, !llvm.loop !11

for.cond.cleanup:                                 ; preds = %for.cond
  store atomic i32 0, ptr getelementptr inbounds nuw (i8, ptr @pool, i64 132) monotonic, align 4
  br i1 %cmp348.i, label %for.body22, label %for.cond.cleanup21

if.end:                                           ; preds = %for.body4.preheader
  call void @llvm.lifetime.start.p0(i64 128, ptr nonnull %here.i) #11
  call void @llvm.memset.p0.i64(ptr noundef nonnull align 8 dereferenceable(128) %here.i, i8 0, i64 128, i1 false)
  %call.i47 = call i32 @sched_getcpu() #11
  %cmp.i = icmp ult i32 %call.i47, 1024
  br i1 %cmp.i, label %cond.true.i, label %cond.end.i

cond.true.i:                                      ; preds = %if.end
  %conv.i = zext nneg i32 %call.i47 to i64
  %rem.i = and i64 %conv.i, 63
  %shl.i = shl nuw i64 1, %rem.i
  %div242.i = lshr i64 %conv.i, 6
  %arrayidx.i = getelementptr inbounds nuw i64, ptr %here.i, i64 %div242.i
  %5 = load i64, ptr %arrayidx.i, align 8
  %or.i = or i64 %5, %shl.i
  store i64 %or.i, ptr %arrayidx.i, align 8
  br label %cond.end.i

cond.end.i:                                       ; preds = %cond.true.i, %if.end
  br i1 %cmp348.i, label %for.body.i, label %fetch_stalled.exit

for.body.i:                                       ; preds = %cond.end.i, %cleanup.i
  %indvars.iv.i = phi i64 [ %indvars.iv.next.i, %cleanup.i ], [ 0, %cond.end.i ]
  %found.050.i = phi i32 [ %found.1.i, %cleanup.i ], [ 0, %cond.end.i ]
  %arrayidx5.i = getelementptr inbounds nuw [511 x %struct.Helper], ptr getelementptr inbounds nuw (i8, ptr @pool, i64 1024), i64 0, i64 %indvars.iv.i
  %busy.i = getelementptr inbounds nuw i8, ptr %arrayidx5.i, i64 4
  %6 = load atomic i32, ptr %busy.i seq_cst, align 4
  %tobool.not.i = icmp eq i32 %6, 0
  br i1 %tobool.not.i, label %cleanup.i, label %lor.lhs.false.i

lor.lhs.false.i:                                  ; preds = %for.body.i
  %div643.i = lshr i64 %indvars.iv.i, 6
  %idxprom7.i = and i64 %div643.i, 67108863
  %arrayidx8.i = getelementptr inbounds nuw i64, ptr %moved, i64 %idxprom7.i
  %7 = load i64, ptr %arrayidx8.i, align 8
  %rem9.i = and i64 %indvars.iv.i, 63
  %8 = shl nuw i64 1, %rem9.i
  %9 = and i64 %7, %8
  %tobool10.not.i = icmp eq i64 %9, 0
  br i1 %tobool10.not.i, label %lor.lhs.false11.i, label %cleanup.i

lor.lhs.false11.i:                                ; preds = %lor.lhs.false.i
  %clock.i = getelementptr inbounds nuw i8, ptr %arrayidx5.i, i64 148
  %10 = load i32, ptr %clock.i, align 4
  call void @llvm.lifetime.start.p0(i64 16, ptr nonnull %t.i.i.i) #11
  %call.i.i.i = call i32 @clock_gettime(i32 noundef %10, ptr noundef nonnull %t.i.i.i) #11
  %tobool.not.i.i.i = icmp eq i32 %call.i.i.i, 0
  br i1 %tobool.not.i.i.i, label %cpu_time.exit.i.i, label %cpu_time.exit.thread.i.i

for.cond.i.i:                                     ; preds = %cpu_time.exit.i.i
  %11 = load i32, ptr %clock.i, align 4
  call void @llvm.lifetime.start.p0(i64 16, ptr nonnull %t.i33.i.i) #11
  %call.i34.i.i = call i32 @clock_gettime(i32 noundef %11, ptr noundef nonnull %t.i33.i.i) #11
  %tobool.not.i35.i.i = icmp eq i32 %call.i34.i.i, 0
  br i1 %tobool.not.i35.i.i, label %cond.false.i37.i.i, label %cpu_time.exit41.i.i

cpu_time.exit.thread.i.i:                         ; preds = %lor.lhs.false11.i
  call void @llvm.lifetime.end.p0(i64 16, ptr nonnull %t.i.i.i) #11
  br label %if.end.i

cpu_time.exit.i.i:                                ; preds = %lor.lhs.false11.i
  %12 = load i64, ptr %t.i.i.i, align 8
  %mul.i.i.i = mul nsw i64 %12, 1000000000
  %13 = load i64, ptr %tv_nsec.i.i.i, align 8
  %add.i.i.i = add nsw i64 %mul.i.i.i, %13
  call void @llvm.lifetime.end.p0(i64 16, ptr nonnull %t.i.i.i) #11
  %cmp3.i.i = icmp slt i64 %add.i.i.i, 0
  br i1 %cmp3.i.i, label %if.end.i, label %for.cond.i.i

cond.false.i37.i.i:                               ; preds = %for.cond.i.i
  %14 = load i64, ptr %t.i33.i.i, align 8
  %mul.i38.i.i = mul nsw i64 %14, 1000000000
  %15 = load i64, ptr %tv_nsec.i39.i.i, align 8
  %add.i40.i.i = add nsw i64 %mul.i38.i.i, %15
  br label %cpu_time.exit41.i.i

cpu_time.exit41.i.i:                              ; preds = %cond.false.i37.i.i, %for.cond.i.i
  %cond.i36.i.i = phi i64 [ %add.i40.i.i, %cond.false.i37.i.i ], [ -1, %for.cond.i.i ]
  call void @llvm.lifetime.end.p0(i64 16, ptr nonnull %t.i33.i.i) #11
  %cmp14.not.i.i = icmp sgt i64 %cond.i36.i.i, %add.i.i.i
  br i1 %cmp14.not.i.i, label %cleanup.i, label %if.end.i

if.end.i:                                         ; preds = %cpu_time.exit41.i.i, %cpu_time.exit.i.i, %cpu_time.exit.thread.i.i
  %held.i.i = getelementptr inbounds nuw i8, ptr %arrayidx5.i, i64 8
  %16 = atomicrmw xchg ptr %held.i.i, i32 1 seq_cst, align 8
  %tobool.not.i.i = icmp eq i32 %16, 0
  br i1 %tobool.not.i.i, label %if.end.i.i, label %cleanup.i

if.end.i.i:                                       ; preds = %if.end.i
  %thread.i.i = getelementptr inbounds nuw i8, ptr %arrayidx5.i, i64 144
  %17 = load i32, ptr %thread.i.i, align 16
  %given.i.i = getelementptr inbounds nuw i8, ptr %arrayidx5.i, i64 16
  %call.i.i = call i32 @sched_getaffinity(i32 noundef %17, i64 noundef 128, ptr noundef nonnull %given.i.i) #11
  %tobool1.not.i.i = icmp eq i32 %call.i.i, 0
  br i1 %tobool1.not.i.i, label %if.end17.i, label %if.end3.i.i

if.end3.i.i:                                      ; preds = %if.end.i.i
  store atomic i32 0, ptr %held.i.i seq_cst, align 8
  br label %cleanup.i

if.end17.i:                                       ; preds = %if.end.i.i
  %18 = load i64, ptr %arrayidx8.i, align 8
  %or24.i = or i64 %18, %8
  store i64 %or24.i, ptr %arrayidx8.i, align 8
  %19 = load i32, ptr %thread.i.i, align 16
  %call25.i = call i32 @sched_setaffinity(i32 noundef %19, i64 noundef 128, ptr noundef nonnull %here.i) #11
  br label %cleanup.i

cleanup.i:                                        ; preds = %if.end17.i, %if.end3.i.i, %if.end.i, %cpu_time.exit41.i.i, %lor.lhs.false.i, %for.body.i
  %found.1.i = phi i32 [ 1, %if.end17.i ], [ %found.050.i, %cpu_time.exit41.i.i ], [ %found.050.i, %lor.lhs.false.i ], [ %found.050.i, %for.body.i ], [ 1, %if.end3.i.i ], [ 1, %if.end.i ]
  %indvars.iv.next.i = add nuw nsw i64 %indvars.iv.i, 1
  %exitcond.not.i = icmp eq i64 %indvars.iv.next.i, %wide.trip.count.i
  br i1 %exitcond.not.i, label %fetch_stalled.exit.loopexit, label %for.body.i, !llvm.loop !12

fetch_stalled.exit.loopexit:                      ; preds = %cleanup.i
  %20 = icmp eq i32 %found.1.i, 0
  br label %fetch_stalled.exit

fetch_stalled.exit:                               ; preds = %fetch_stalled.exit.loopexit, %cond.end.i
  %found.0.lcssa.i = phi i1 [ true, %cond.end.i ], [ %20, %fetch_stalled.exit.loopexit ]
  call void @llvm.lifetime.end.p0(i64 128, ptr nonnull %here.i) #11
  %sub8 = sub nsw i64 %add.i46, %add.i
  %cmp9 = icmp slt i64 %sub8, 50000
  %or.cond = select i1 %found.0.lcssa.i, i1 %cmp9, i1 false
  br i1 %or.cond, label %for.cond.outer.backedge, label %if.end11

if.end11:                                         ; preds = %fetch_stalled.exit
  store atomic i32 1, ptr getelementptr inbounds nuw (i8, ptr @pool, i64 132) seq_cst, align 4
  %21 = load atomic i32, ptr getelementptr inbounds nuw (i8, ptr @pool, i64 128) seq_cst, align 128
  %cmp13.not = icmp eq i32 %21, %shares
  br i1 %cmp13.not, label %for.cond.outer.backedge, label %if.then14

for.cond.outer.backedge:                          ; preds = %if.end11, %if.then14, %fetch_stalled.exit
  br label %for.cond.outer, !llvm.loop !11

if.then14:                                        ; preds = %if.end11
  call void @llvm.lifetime.start.p0(i64 16, ptr nonnull %most.i) #11
  store i64 0, ptr %most.i, align 8
  store i64 200000, ptr %tv_nsec.i48, align 8
  %call.i49 = call i64 (i64, ...) @syscall(i64 noundef 202, ptr noundef nonnull getelementptr inbounds nuw (i8, ptr @pool, i64 128), i32 noundef 128, i32 noundef %21, ptr noundef nonnull %most.i, ptr noundef null, i32 noundef 0) #11
  call void @llvm.lifetime.end.p0(i64 16, ptr nonnull %most.i) #11
  br label %for.cond.outer.backedge

for.cond.cleanup21:                               ; preds = %for.inc28, %for.cond.cleanup
  call void @llvm.lifetime.end.p0(i64 64, ptr nonnull %moved) #11
  ret void

for.body22:                                       ; preds = %for.cond.cleanup, %for.inc28
  %indvars.iv = phi i64 [ %indvars.iv.next, %for.inc28 ], [ 0, %for.cond.cleanup ]
  %div41 = lshr i64 %indvars.iv, 6
  %idxprom = and i64 %div41, 67108863
  %arrayidx = getelementptr inbounds nuw [8 x i64], ptr %moved, i64 0, i64 %idxprom
  %22 = load i64, ptr %arrayidx, align 8
  %rem = and i64 %indvars.iv, 63
  %23 = shl nuw i64 1, %rem
  %24 = and i64 %22, %23
  %tobool23.not = icmp eq i64 %24, 0
  br i1 %tobool23.not, label %for.inc28, label %if.then24

if.then24:                                        ; preds = %for.body22
  %arrayidx26 = getelementptr inbounds nuw [511 x %struct.Helper], ptr getelementptr inbounds nuw (i8, ptr @pool, i64 1024), i64 0, i64 %indvars.iv
  %thread.i = getelementptr inbounds nuw i8, ptr %arrayidx26, i64 144
  %25 = load i32, ptr %thread.i, align 16
  %given.i = getelementptr inbounds nuw i8, ptr %arrayidx26, i64 16
  %call.i50 = call i32 @sched_setaffinity(i32 noundef %25, i64 noundef 128, ptr noundef nonnull %given.i) #11
  %held.i = getelementptr inbounds nuw i8, ptr %arrayidx26, i64 8
  store atomic i32 0, ptr %held.i seq_cst, align 8
  br label %for.inc28

for.inc28:                                        ; preds = %for.body22, %if.then24
  %indvars.iv.next = add nuw nsw i64 %indvars.iv, 1
  %exitcond.not = icmp eq i64 %indvars.iv.next, %wide.trip.count.i
  br i1 %exitcond.not, label %for.cond.cleanup21, label %for.body22, !llvm.loop !13
}

; Function Attrs: nounwind
declare i32 @pthread_attr_init(ptr noundef) local_unnamed_addr #1

; Function Attrs: nounwind
declare i32 @pthread_attr_setdetachstate(ptr noundef, i32 noundef) local_unnamed_addr #1

; Function Attrs: nounwind
declare i32 @pthread_attr_setstacksize(ptr noundef, i64 noundef) local_unnamed_addr #1

; Function Attrs: nounwind
declare i32 @sigfillset(ptr noundef) local_unnamed_addr #1

; Function Attrs: nounwind
declare i32 @pthread_sigmask(i32 noundef, ptr noundef, ptr noundef) local_unnamed_addr #1

; Function Attrs: nounwind
declare i32 @pthread_create(ptr noundef, ptr noundef, ptr noundef, ptr noundef) local_unnamed_addr #1

; Function Attrs: noreturn nounwind uwtable
define internal noalias noundef nonnull ptr @help(ptr noundef %number) #10 {
entry:
  %t.i13.i = alloca %struct.timespec, align 8
  %t.i.i = alloca %struct.timespec, align 8
  %t.i68 = alloca %struct.timespec, align 8
  %t.i = alloca %struct.timespec, align 8
  %part = alloca %struct.Part, align 8
  %0 = ptrtoint ptr %number to i64
  %conv = trunc i64 %0 to i32
  %sext = shl i64 %0, 32
  %idxprom = ashr exact i64 %sext, 32
  %arrayidx = getelementptr inbounds [511 x %struct.Helper], ptr getelementptr inbounds nuw (i8, ptr @pool, i64 1024), i64 0, i64 %idxprom
  %call = tail call i64 (i64, ...) @syscall(i64 noundef 186) #11
  %conv1 = trunc i64 %call to i32
  %thread = getelementptr inbounds nuw i8, ptr %arrayidx, i64 144
  store i32 %conv1, ptr %thread, align 16
  %call2 = tail call i64 @pthread_self() #15
  %clock = getelementptr inbounds nuw i8, ptr %arrayidx, i64 148
  %call3 = tail call i32 @pthread_getcpuclockid(i64 noundef %call2, ptr noundef nonnull %clock) #11
  %tobool.not = icmp eq i32 %call3, 0
  br i1 %tobool.not, label %if.end, label %if.then

if.then:                                          ; preds = %entry
  store i32 -1, ptr %clock, align 4
  br label %if.end

if.end:                                           ; preds = %if.then, %entry
  %busy = getelementptr inbounds nuw i8, ptr %arrayidx, i64 4
  %tv_nsec.i = getelementptr inbounds nuw i8, ptr %t.i, i64 8
  %tv_nsec.i71 = getelementptr inbounds nuw i8, ptr %t.i68, i64 8
  %tv_nsec.i.i = getelementptr inbounds nuw i8, ptr %t.i.i, i64 8
  %tv_nsec.i16.i = getelementptr inbounds nuw i8, ptr %t.i13.i, i64 8
  br label %for.cond

for.cond:                                         ; preds = %for.cond.backedge, %if.end
  %call5 = call i32 @sched_getcpu() #11
  %1 = load atomic i32, ptr getelementptr inbounds nuw (i8, ptr @pool, i64 276) monotonic, align 4
  %cmp.not = icmp eq i32 %call5, %1
  br i1 %cmp.not, label %if.end45.sink.split, label %if.then8

if.then8:                                         ; preds = %for.cond
  store atomic i32 1, ptr %busy seq_cst, align 4
  call void @llvm.lifetime.start.p0(i64 24, ptr nonnull %part) #11
  call void @llvm.memcpy.p0.p0.i64(ptr noundef nonnull align 8 dereferenceable(24) %part, ptr noundef nonnull align 8 dereferenceable(24) @__const.help.part, i64 24, i1 false)
  call void @llvm.lifetime.start.p0(i64 16, ptr nonnull %t.i) #11
  %call.i = call i32 @clock_gettime(i32 noundef 1, ptr noundef nonnull %t.i) #11
  %2 = load i64, ptr %t.i, align 8
  %3 = load i64, ptr %tv_nsec.i, align 8
  call void @llvm.lifetime.end.p0(i64 16, ptr nonnull %t.i) #11
  %call10 = call fastcc i32 @work(i32 noundef %conv, ptr noundef %part)
  %tobool11.not = icmp eq i32 %call10, 0
  br i1 %tobool11.not, label %cond.end.thread, label %if.then15

cond.end.thread:                                  ; preds = %if.then8
  %4 = load atomic i64, ptr getelementptr inbounds nuw (i8, ptr @pool, i64 288) monotonic, align 32
  br label %if.end23

if.then15:                                        ; preds = %if.then8
  call void @llvm.lifetime.start.p0(i64 16, ptr nonnull %t.i68) #11
  %call.i69 = call i32 @clock_gettime(i32 noundef 1, ptr noundef nonnull %t.i68) #11
  %5 = load i64, ptr %t.i68, align 8
  %6 = load i64, ptr %tv_nsec.i71, align 8
  call void @llvm.lifetime.end.p0(i64 16, ptr nonnull %t.i68) #11
  %reass.add = sub i64 %5, %2
  %reass.mul = mul i64 %reass.add, 1000000000
  %add.i72 = sub i64 %6, %3
  %sub = add i64 %add.i72, %reass.mul
  %div = sdiv i64 %sub, 4
  %7 = load atomic i64, ptr getelementptr inbounds nuw (i8, ptr @pool, i64 288) monotonic, align 32
  %8 = atomicrmw add ptr getelementptr inbounds nuw (i8, ptr @pool, i64 128), i32 %call10 seq_cst, align 128
  %9 = load atomic i32, ptr getelementptr inbounds nuw (i8, ptr @pool, i64 132) seq_cst, align 4
  %tobool21.not = icmp eq i32 %9, 0
  br i1 %tobool21.not, label %if.end23, label %if.then22

if.then22:                                        ; preds = %if.then15
  %call.i73 = call i64 (i64, ...) @syscall(i64 noundef 202, ptr noundef nonnull getelementptr inbounds nuw (i8, ptr @pool, i64 128), i32 noundef 129, i32 noundef 1, ptr noundef null, ptr noundef null, i32 noundef 0) #11
  br label %if.end23

if.end23:                                         ; preds = %cond.end.thread, %if.then22, %if.then15
  %10 = phi i64 [ %4, %cond.end.thread ], [ %7, %if.then22 ], [ %7, %if.then15 ]
  %cond79 = phi i64 [ 0, %cond.end.thread ], [ %div, %if.then22 ], [ %div, %if.then15 ]
  store atomic i32 0, ptr %busy seq_cst, align 4
  %11 = load i64, ptr @settings.2, align 8
  %spec.select = call i64 @llvm.smin.i64(i64 %cond79, i64 %11)
  %cond35 = call i64 @llvm.smax.i64(i64 %spec.select, i64 %10)
  %tobool.not.i = icmp eq i64 %cond35, 0
  br i1 %tobool.not.i, label %land.lhs.true39, label %cond.end.i

cond.end.i:                                       ; preds = %if.end23
  call void @llvm.lifetime.start.p0(i64 16, ptr nonnull %t.i.i) #11
  %call.i.i = call i32 @clock_gettime(i32 noundef 1, ptr noundef nonnull %t.i.i) #11
  %12 = load i64, ptr %t.i.i, align 8
  %mul.i.i = mul nsw i64 %12, 1000000000
  %13 = load i64, ptr %tv_nsec.i.i, align 8
  call void @llvm.lifetime.end.p0(i64 16, ptr nonnull %t.i.i) #11
  %add.i.i = add i64 %13, %cond35
  %add.i74 = add i64 %add.i.i, %mul.i.i
  %tobool1.not.i = icmp eq i64 %add.i74, 0
  br i1 %tobool1.not.i, label %land.lhs.true39, label %land.lhs.true.lr.ph.i

land.lhs.true.lr.ph.i:                            ; preds = %cond.end.i
  %14 = load atomic i64, ptr @pool seq_cst, align 128
  %shr.i.i.i.i80 = lshr i64 %14, 10
  %and.i.i.i.i81 = and i64 %shr.i.i.i.i80, 1023
  %and.i3.i.i.i82 = and i64 %14, 1023
  %cmp.i.not.i.i83 = icmp samesign uge i64 %and.i.i.i.i81, %and.i3.i.i.i82
  %15 = trunc i64 %14 to i32
  %16 = lshr i32 %15, 20
  %conv.i.i84 = and i32 %16, 1023
  %cmp.i.i85 = icmp sle i32 %conv.i.i84, %conv
  %narrow.i.not.i86 = or i1 %cmp.i.not.i.i83, %cmp.i.i85
  br i1 %narrow.i.not.i86, label %land.rhs.i, label %land.lhs.true39

land.rhs.i:                                       ; preds = %land.lhs.true.lr.ph.i, %for.body8.preheader.i
  call void @llvm.lifetime.start.p0(i64 16, ptr nonnull %t.i13.i) #11
  %call.i14.i = call i32 @clock_gettime(i32 noundef 1, ptr noundef nonnull %t.i13.i) #11
  %17 = load i64, ptr %t.i13.i, align 8
  %mul.i15.i = mul nsw i64 %17, 1000000000
  %18 = load i64, ptr %tv_nsec.i16.i, align 8
  %add.i17.i = add nsw i64 %mul.i15.i, %18
  call void @llvm.lifetime.end.p0(i64 16, ptr nonnull %t.i13.i) #11
  %cmp.i = icmp slt i64 %add.i17.i, %add.i74
  br i1 %cmp.i, label %for.body8.preheader.i, label %land.lhs.true39

for.body8.preheader.i:                            ; preds = %land.rhs.i
  call void @llvm.x86.sse2.pause()
  call void @llvm.x86.sse2.pause()
  call void @llvm.x86.sse2.pause()
  call void @llvm.x86.sse2.pause()
  call void @llvm.x86.sse2.pause()
  call void @llvm.x86.sse2.pause()
  call void @llvm.x86.sse2.pause()
  call void @llvm.x86.sse2.pause()
  %19 = load atomic i64, ptr @pool seq_cst, align 128
  %shr.i.i.i.i = lshr i64 %19, 10
  %and.i.i.i.i = and i64 %shr.i.i.i.i, 1023
  %and.i3.i.i.i = and i64 %19, 1023
  %cmp.i.not.i.i = icmp samesign uge i64 %and.i.i.i.i, %and.i3.i.i.i
  %20 = trunc i64 %19 to i32
  %21 = lshr i32 %20, 20
  %conv.i.i = and i32 %21, 1023
  %cmp.i.i = icmp sle i32 %conv.i.i, %conv
  %narrow.i.not.i = or i1 %cmp.i.not.i.i, %cmp.i.i
  br i1 %narrow.i.not.i, label %land.rhs.i, label %land.lhs.true39

land.lhs.true39:                                  ; preds = %for.body8.preheader.i, %land.rhs.i, %land.lhs.true.lr.ph.i, %cond.end.i, %if.end23
  call void @llvm.lifetime.end.p0(i64 24, ptr nonnull %part) #11
  store atomic i32 1, ptr %arrayidx seq_cst, align 128
  %22 = load atomic i64, ptr @pool seq_cst, align 128
  %shr.i.i.i = lshr i64 %22, 10
  %and.i.i.i = and i64 %shr.i.i.i, 1023
  %and.i3.i.i = and i64 %22, 1023
  %cmp.i.not.i = icmp samesign uge i64 %and.i.i.i, %and.i3.i.i
  %23 = trunc i64 %22 to i32
  %24 = lshr i32 %23, 20
  %conv.i = and i32 %24, 1023
  %cmp.i75 = icmp sle i32 %conv.i, %conv
  %narrow.i.not = or i1 %cmp.i.not.i, %cmp.i75
  br i1 %narrow.i.not, label %if.end45, label %if.end45.sink.split

if.end45.sink.split:                              ; preds = %for.cond, %land.lhs.true39
  %.sink = phi i32 [ 0, %land.lhs.true39 ], [ 1, %for.cond ]
  store atomic i32 %.sink, ptr %arrayidx seq_cst, align 128
  br label %if.end45

if.end45:                                         ; preds = %if.end45.sink.split, %land.lhs.true39
  %25 = load atomic i32, ptr %arrayidx seq_cst, align 128
  %tobool48.not87 = icmp eq i32 %25, 0
  br i1 %tobool48.not87, label %for.cond.backedge, label %while.body

for.cond.backedge:                                ; preds = %while.body, %if.end45
  br label %for.cond

while.body:                                       ; preds = %if.end45, %while.body
  %call.i77 = call i64 (i64, ...) @syscall(i64 noundef 202, ptr noundef nonnull %arrayidx, i32 noundef 128, i32 noundef 1, ptr noundef null, ptr noundef null, i32 noundef 0) #11
  %26 = load atomic i32, ptr %arrayidx seq_cst, align 128
  %tobool48.not = icmp eq i32 %26, 0
  br i1 %tobool48.not, label %for.cond.backedge, label %while.body, !llvm.loop !14
}

; Function Attrs: nounwind
declare i32 @pthread_attr_destroy(ptr noundef) local_unnamed_addr #1

; Function Attrs: nounwind
declare i64 @syscall(i64 noundef, ...) local_unnamed_addr #1

; Function Attrs: nounwind
declare void @llvm.x86.sse2.pause() #11

; Function Attrs: nounwind
declare i32 @__sched_cpucount(i64 noundef, ptr noundef) local_unnamed_addr #1

; Function Attrs: nounwind
declare i32 @sched_setaffinity(i32 noundef, i64 noundef, ptr noundef) local_unnamed_addr #1

; Function Attrs: nounwind
declare i32 @sched_getaffinity(i32 noundef, i64 noundef, ptr noundef) local_unnamed_addr #1

; Function Attrs: nounwind
declare ptr @pthread_getspecific(i32 noundef) local_unnamed_addr #1

; Function Attrs: mustprogress nofree nounwind willreturn allockind("alloc,zeroed") allocsize(0,1) memory(inaccessiblemem: readwrite)
declare noalias noundef ptr @calloc(i64 noundef, i64 noundef) local_unnamed_addr #12

; Function Attrs: nounwind
declare i32 @pthread_setspecific(i32 noundef, ptr noundef) local_unnamed_addr #1

; Function Attrs: nocallback nofree nosync nounwind speculatable willreturn memory(none)
declare i32 @llvm.smin.i32(i32, i32) #13

; Function Attrs: nocallback nofree nosync nounwind speculatable willreturn memory(none)
declare i64 @llvm.smax.i64(i64, i64) #13

; Function Attrs: nocallback nofree nosync nounwind speculatable willreturn memory(none)
declare i64 @llvm.smin.i64(i64, i64) #13

; Function Attrs: nocallback nofree nosync nounwind speculatable willreturn memory(none)
declare i32 @llvm.umin.i32(i32, i32) #13

attributes #0 = { nounwind uwtable "no-trapping-math"="true" }
attributes #1 = { nounwind "no-trapping-math"="true" }
attributes #2 = { mustprogress nounwind willreturn allockind("free") memory(argmem: readwrite, inaccessiblemem: readwrite) "alloc-family"="malloc" "no-trapping-math"="true" }
attributes #3 = { mustprogress nofree norecurse nosync nounwind willreturn memory(write, argmem: readwrite, inaccessiblemem: none) uwtable "no-trapping-math"="true" }
attributes #4 = { mustprogress nocallback nofree nosync nounwind willreturn memory(argmem: readwrite) }
attributes #5 = { mustprogress nofree norecurse nounwind willreturn memory(readwrite, inaccessiblemem: none) uwtable "no-trapping-math"="true" }
attributes #6 = { mustprogress nocallback nofree nounwind willreturn memory(argmem: readwrite) }
attributes #7 = { mustprogress nocallback nofree nounwind willreturn memory(argmem: write) }
attributes #8 = { mustprogress nofree nosync nounwind willreturn memory(none) "no-trapping-math"="true" }
attributes #9 = { "no-trapping-math"="true" }
attributes #10 = { noreturn nounwind uwtable "no-trapping-math"="true" }
attributes #11 = { nounwind }
attributes #12 = { mustprogress nofree nounwind willreturn allockind("alloc,zeroed") allocsize(0,1) memory(inaccessiblemem: readwrite) "alloc-family"="malloc" "no-trapping-math"="true" }
attributes #13 = { nocallback nofree nosync nounwind speculatable willreturn memory(none) }
attributes #14 = { nounwind allocsize(0,1) }
attributes #15 = { nounwind willreturn memory(none) }

!llvm.module.flags = !{!0, !1, !2, !3, !4}

!0 = !{i32 7, !"Dwarf Version", i32 4}
!1 = !{i32 1, !"wchar_size", i32 4}
!2 = !{i32 8, !"PIC Level", i32 2}
!3 = !{i32 7, !"uwtable", i32 2}
!4 = !{i32 7, !"frame-pointer", i32 2}
!6 = distinct !{!6, !7}
!7 = !{!"llvm.loop.mustprogress"}
!8 = distinct !{!8, !7}
!9 = distinct !{!9, !7}
!10 = distinct !{!10, !7}
!11 = distinct !{!11, !7}
!12 = distinct !{!12, !7}
!13 = distinct !{!13, !7}
!14 = distinct !{!14, !7}
