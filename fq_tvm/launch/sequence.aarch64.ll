; Made of sequence.c by `pytest tests/launch/test_threads_ir.py --update-golden`.
source_filename = "sequence.c"
target datalayout = "e-m:e-p270:32:32-p271:32:32-p272:64:64-i8:8:32-i16:16:32-i64:64-i128:128-n32:64-S128-Fn32"
target triple = "aarch64-unknown-linux-gnu"

%struct.Any = type { i32, i32, %union.anon }
%union.anon = type { i64 }
%struct.Tensor = type { ptr, i32, i32, i32, i32, ptr, ptr, i64 }
%struct.Expected = type { ptr, i32, i32, ptr, ptr, i64 }
%struct.Argument = type { i64, i64, %struct.Any }
%struct.Step = type { ptr, ptr, i64, i64 }

; Function Attrs: nounwind uwtable
define i32 @__tvm_ffi_sequence(ptr nocapture noundef readnone %self, ptr nocapture noundef readonly %args, i32 noundef %count, ptr nocapture noundef writeonly initializes((0, 16)) %result) local_unnamed_addr #0 {
entry:
  %arguments = alloca [48 x %struct.Any], align 8
  %none = alloca %struct.Any, align 8
  %places = alloca [48 x %struct.Tensor], align 8
  %0 = getelementptr inbounds nuw i8, ptr %args, i64 8
  %1 = load ptr, ptr %0, align 8
  %2 = getelementptr inbounds nuw i8, ptr %args, i64 24
  %3 = load ptr, ptr %2, align 8
  %4 = load ptr, ptr %3, align 8
  %add.ptr = getelementptr inbounds nuw i8, ptr %args, i64 32
  store <2 x i32> <i32 1, i32 0>, ptr %result, align 8
  %5 = getelementptr inbounds nuw i8, ptr %result, i64 8
  store i64 1, ptr %5, align 8
  %conv = sext i32 %count to i64
  %tensors = getelementptr inbounds nuw i8, ptr %1, i64 16
  %6 = load i64, ptr %tensors, align 8
  %add = add nsw i64 %6, 2
  %cmp.not = icmp eq i64 %add, %conv
  br i1 %cmp.not, label %for.cond.preheader, label %cleanup82

for.cond.preheader:                               ; preds = %entry
  %cmp5.not133 = icmp sgt i64 %6, 0
  br i1 %cmp5.not133, label %for.body.lr.ph, label %for.end

for.body.lr.ph:                                   ; preds = %for.cond.preheader
  %7 = load ptr, ptr %1, align 8
  br label %for.body

for.body:                                         ; preds = %for.body.lr.ph, %for.inc
  %indvars.iv = phi i64 [ 0, %for.body.lr.ph ], [ %indvars.iv.next, %for.inc ]
  %arrayidx7 = getelementptr inbounds nuw %struct.Any, ptr %add.ptr, i64 %indvars.iv
  %arrayidx9 = getelementptr inbounds nuw %struct.Expected, ptr %7, i64 %indvars.iv
  %8 = load i32, ptr %arrayidx7, align 8
  switch i32 %8, label %cleanup82 [
    i32 7, label %cond.true.i
    i32 70, label %cond.false.i
  ]

cond.true.i:                                      ; preds = %for.body
  %9 = getelementptr inbounds nuw i8, ptr %arrayidx7, i64 8
  %10 = load ptr, ptr %9, align 8
  br label %cond.end.i

cond.false.i:                                     ; preds = %for.body
  %11 = getelementptr inbounds nuw i8, ptr %arrayidx7, i64 8
  %12 = load ptr, ptr %11, align 8
  %tensor5.i = getelementptr inbounds nuw i8, ptr %12, i64 24
  br label %cond.end.i

cond.end.i:                                       ; preds = %cond.false.i, %cond.true.i
  %cond.i = phi ptr [ %10, %cond.true.i ], [ %tensor5.i, %cond.false.i ]
  %13 = load ptr, ptr %cond.i, align 8
  %byte_offset.i = getelementptr inbounds nuw i8, ptr %cond.i, i64 40
  %14 = load i64, ptr %byte_offset.i, align 8
  %add.ptr.i = getelementptr inbounds nuw i8, ptr %13, i64 %14
  %tobool.not.i = icmp eq ptr %13, null
  br i1 %tobool.not.i, label %cleanup82, label %lor.lhs.false.i

lor.lhs.false.i:                                  ; preds = %cond.end.i
  %15 = load ptr, ptr %arrayidx9, align 8
  %tobool9.not.i = icmp eq ptr %15, null
  %cmp12.not.i = icmp eq ptr %add.ptr.i, %15
  %or.cond.i = select i1 %tobool9.not.i, i1 true, i1 %cmp12.not.i
  br i1 %or.cond.i, label %if.end14.i, label %cleanup82

if.end14.i:                                       ; preds = %lor.lhs.false.i
  %device_type.i = getelementptr inbounds nuw i8, ptr %cond.i, i64 8
  %16 = load i32, ptr %device_type.i, align 8
  %cmp15.not.i = icmp eq i32 %16, 1
  br i1 %cmp15.not.i, label %lor.lhs.false16.i, label %cleanup82

lor.lhs.false16.i:                                ; preds = %if.end14.i
  %dtype.i = getelementptr inbounds nuw i8, ptr %cond.i, i64 20
  %17 = load i32, ptr %dtype.i, align 4
  %dtype17.i = getelementptr inbounds nuw i8, ptr %arrayidx9, i64 8
  %18 = load i32, ptr %dtype17.i, align 8
  %cmp18.not.i = icmp eq i32 %17, %18
  br i1 %cmp18.not.i, label %lor.lhs.false19.i, label %cleanup82

lor.lhs.false19.i:                                ; preds = %lor.lhs.false16.i
  %ndim.i = getelementptr inbounds nuw i8, ptr %cond.i, i64 16
  %19 = load i32, ptr %ndim.i, align 8
  %ndim20.i = getelementptr inbounds nuw i8, ptr %arrayidx9, i64 12
  %20 = load i32, ptr %ndim20.i, align 4
  %cmp21.not.i = icmp eq i32 %19, %20
  br i1 %cmp21.not.i, label %for.cond.preheader.i, label %cleanup82

for.cond.preheader.i:                             ; preds = %lor.lhs.false19.i
  %cmp25.not104.i = icmp sgt i32 %19, 0
  br i1 %cmp25.not104.i, label %for.body.lr.ph.i, label %for.end.i

for.body.lr.ph.i:                                 ; preds = %for.cond.preheader.i
  %shape.i = getelementptr inbounds nuw i8, ptr %cond.i, i64 24
  %21 = load ptr, ptr %shape.i, align 8
  %shape26.i = getelementptr inbounds nuw i8, ptr %arrayidx9, i64 16
  %22 = load ptr, ptr %shape26.i, align 8
  %strides.i = getelementptr inbounds nuw i8, ptr %cond.i, i64 32
  %strides39.i = getelementptr inbounds nuw i8, ptr %arrayidx9, i64 24
  %wide.trip.count.i = zext nneg i32 %19 to i64
  br label %for.body.i

for.body.i:                                       ; preds = %for.inc.i, %for.body.lr.ph.i
  %indvars.iv.i = phi i64 [ 0, %for.body.lr.ph.i ], [ %indvars.iv.next.i, %for.inc.i ]
  %arrayidx.i = getelementptr inbounds nuw i64, ptr %21, i64 %indvars.iv.i
  %23 = load i64, ptr %arrayidx.i, align 8
  %arrayidx28.i = getelementptr inbounds nuw i64, ptr %22, i64 %indvars.iv.i
  %24 = load i64, ptr %arrayidx28.i, align 8
  %cmp29.not.i = icmp eq i64 %23, %24
  br i1 %cmp29.not.i, label %if.end31.i, label %cleanup82

if.end31.i:                                       ; preds = %for.body.i
  %cmp35.not.i = icmp eq i64 %23, 1
  br i1 %cmp35.not.i, label %for.inc.i, label %land.lhs.true36.i

land.lhs.true36.i:                                ; preds = %if.end31.i
  %25 = load ptr, ptr %strides.i, align 8
  %arrayidx38.i = getelementptr inbounds nuw i64, ptr %25, i64 %indvars.iv.i
  %26 = load i64, ptr %arrayidx38.i, align 8
  %27 = load ptr, ptr %strides39.i, align 8
  %arrayidx41.i = getelementptr inbounds nuw i64, ptr %27, i64 %indvars.iv.i
  %28 = load i64, ptr %arrayidx41.i, align 8
  %cmp42.not.i = icmp eq i64 %26, %28
  br i1 %cmp42.not.i, label %for.inc.i, label %cleanup82

for.inc.i:                                        ; preds = %land.lhs.true36.i, %if.end31.i
  %indvars.iv.next.i = add nuw nsw i64 %indvars.iv.i, 1
  %exitcond.not.i = icmp eq i64 %indvars.iv.next.i, %wide.trip.count.i
  br i1 %exitcond.not.i, label %for.end.i, label %for.body.i, !llvm.loop !6

for.end.i:                                        ; preds = %for.inc.i, %for.cond.preheader.i
  %says.i = getelementptr inbounds nuw i8, ptr %arrayidx9, i64 32
  %29 = load i64, ptr %says.i, align 8
  %cmp45.i = icmp eq i64 %29, 0
  br i1 %cmp45.i, label %for.inc, label %for.cond49.preheader.i

for.cond49.preheader.i:                           ; preds = %for.end.i
  %shr.i = lshr i32 %17, 11
  %and.i = and i32 %shr.i, 31
  %cmp51106.not.i = icmp eq i32 %and.i, 0
  br i1 %cmp51106.not.i, label %for.cond49.preheader.i.is_as_expected.exit_crit_edge, label %for.body53.preheader.i

for.cond49.preheader.i.is_as_expected.exit_crit_edge: ; preds = %for.cond49.preheader.i
  %.not = icmp eq i64 %29, 1
  br i1 %.not, label %for.inc, label %cleanup82

for.body53.preheader.i:                           ; preds = %for.cond49.preheader.i
  %wide.trip.count113.i = zext nneg i32 %and.i to i64
  %min.iters.check = icmp samesign ult i32 %and.i, 8
  br i1 %min.iters.check, label %for.body53.i.preheader, label %vector.ph

vector.ph:                                        ; preds = %for.body53.preheader.i
  %n.vec = and i64 %wide.trip.count113.i, 24
  %30 = getelementptr inbounds nuw i8, ptr %add.ptr.i, i64 4
  %wide.load = load <4 x i8>, ptr %add.ptr.i, align 1
  %wide.load155 = load <4 x i8>, ptr %30, align 1
  %31 = icmp eq i64 %n.vec, 8
  br i1 %31, label %middle.block, label %vector.body.1, !llvm.loop !8

vector.body.1:                                    ; preds = %vector.ph
  %32 = getelementptr inbounds nuw i8, ptr %add.ptr.i, i64 8
  %33 = getelementptr inbounds nuw i8, ptr %add.ptr.i, i64 12
  %wide.load.1 = load <4 x i8>, ptr %32, align 1
  %wide.load155.1 = load <4 x i8>, ptr %33, align 1
  %34 = or <4 x i8> %wide.load, %wide.load.1
  %35 = or <4 x i8> %wide.load155, %wide.load155.1
  %36 = icmp eq i64 %n.vec, 16
  br i1 %36, label %middle.block, label %vector.body.2, !llvm.loop !8

vector.body.2:                                    ; preds = %vector.body.1
  %37 = getelementptr inbounds nuw i8, ptr %add.ptr.i, i64 16
  %38 = getelementptr inbounds nuw i8, ptr %add.ptr.i, i64 20
  %wide.load.2 = load <4 x i8>, ptr %37, align 1
  %wide.load155.2 = load <4 x i8>, ptr %38, align 1
  %39 = or <4 x i8> %34, %wide.load.2
  %40 = or <4 x i8> %35, %wide.load155.2
  br label %middle.block

middle.block:                                     ; preds = %vector.body.2, %vector.body.1, %vector.ph
  %.lcssa158.in = phi <4 x i8> [ %wide.load, %vector.ph ], [ %34, %vector.body.1 ], [ %39, %vector.body.2 ]
  %.lcssa.in = phi <4 x i8> [ %wide.load155, %vector.ph ], [ %35, %vector.body.1 ], [ %40, %vector.body.2 ]
  %bin.rdx160 = or <4 x i8> %.lcssa.in, %.lcssa158.in
  %bin.rdx = zext <4 x i8> %bin.rdx160 to <4 x i32>
  %41 = tail call i32 @llvm.vector.reduce.or.v4i32(<4 x i32> %bin.rdx)
  %cmp.n = icmp eq i64 %n.vec, %wide.trip.count113.i
  br i1 %cmp.n, label %is_as_expected.exit, label %for.body53.i.preheader

for.body53.i.preheader:                           ; preds = %for.body53.preheader.i, %middle.block
  %indvars.iv110.i.ph = phi i64 [ 0, %for.body53.preheader.i ], [ %n.vec, %middle.block ]
  %on.0107.i.ph = phi i32 [ 0, %for.body53.preheader.i ], [ %41, %middle.block ]
  br label %for.body53.i

for.body53.i:                                     ; preds = %for.body53.i.preheader, %for.body53.i
  %indvars.iv110.i = phi i64 [ %indvars.iv.next111.i, %for.body53.i ], [ %indvars.iv110.i.ph, %for.body53.i.preheader ]
  %on.0107.i = phi i32 [ %or.i, %for.body53.i ], [ %on.0107.i.ph, %for.body53.i.preheader ]
  %arrayidx55.i = getelementptr inbounds nuw i8, ptr %add.ptr.i, i64 %indvars.iv110.i
  %42 = load i8, ptr %arrayidx55.i, align 1
  %conv.i = zext i8 %42 to i32
  %or.i = or i32 %on.0107.i, %conv.i
  %indvars.iv.next111.i = add nuw nsw i64 %indvars.iv110.i, 1
  %exitcond114.not.i = icmp eq i64 %indvars.iv.next111.i, %wide.trip.count113.i
  br i1 %exitcond114.not.i, label %is_as_expected.exit, label %for.body53.i, !llvm.loop !11

is_as_expected.exit:                              ; preds = %for.body53.i, %middle.block
  %or.i.lcssa = phi i32 [ %41, %middle.block ], [ %or.i, %for.body53.i ]
  %43 = icmp eq i32 %or.i.lcssa, 0
  %44 = icmp eq i64 %29, 1
  %tobool.not = xor i1 %44, %43
  br i1 %tobool.not, label %cleanup82, label %for.inc

for.inc:                                          ; preds = %for.cond49.preheader.i.is_as_expected.exit_crit_edge, %for.end.i, %is_as_expected.exit
  %indvars.iv.next = add nuw nsw i64 %indvars.iv, 1
  %exitcond.not = icmp eq i64 %indvars.iv.next, %6
  br i1 %exitcond.not, label %for.end, label %for.body, !llvm.loop !12

for.end:                                          ; preds = %for.inc, %for.cond.preheader
  %steps = getelementptr inbounds nuw i8, ptr %1, i64 8
  %count14 = getelementptr inbounds nuw i8, ptr %1, i64 24
  %45 = load i64, ptr %count14, align 8
  %cmp16.not140 = icmp sgt i64 %45, 0
  br i1 %cmp16.not140, label %for.body19.preheader, label %for.end81

for.body19.preheader:                             ; preds = %for.end
  %46 = load ptr, ptr %steps, align 8
  br label %for.body19

for.body19:                                       ; preds = %for.body19.preheader, %for.inc78
  %step.0141 = phi ptr [ %incdec.ptr, %for.inc78 ], [ %46, %for.body19.preheader ]
  call void @llvm.lifetime.start.p0(i64 768, ptr nonnull %arguments) #6
  call void @llvm.lifetime.start.p0(i64 16, ptr nonnull %none) #6
  call void @llvm.memset.p0.i64(ptr noundef nonnull align 8 dereferenceable(16) %none, i8 0, i64 16, i1 false)
  call void @llvm.lifetime.start.p0(i64 2304, ptr nonnull %places) #6
  %count23 = getelementptr inbounds nuw i8, ptr %step.0141, i64 16
  %47 = load i64, ptr %count23, align 8
  %cmp24136 = icmp sgt i64 %47, 0
  br i1 %cmp24136, label %for.body27.lr.ph, label %for.cond.cleanup26

for.body27.lr.ph:                                 ; preds = %for.body19
  %arguments28 = getelementptr inbounds nuw i8, ptr %step.0141, i64 8
  %.pre = load ptr, ptr %arguments28, align 8
  br label %for.body27

for.cond.cleanup26:                               ; preds = %cleanup53, %for.body19
  %48 = load ptr, ptr %step.0141, align 8
  %conv60 = trunc i64 %47 to i32
  %call61 = call i32 @TVMFFIFunctionCall(ptr noundef %48, ptr noundef nonnull %arguments, i32 noundef %conv60, ptr noundef nonnull %none) #6
  %tobool62.not = icmp eq i32 %call61, 0
  br i1 %tobool62.not, label %if.end64, label %cleanup79

for.body27:                                       ; preds = %for.body27.lr.ph, %cleanup53
  %indvars.iv146 = phi i64 [ 0, %for.body27.lr.ph ], [ %indvars.iv.next147, %cleanup53 ]
  %arrayidx30 = getelementptr inbounds nuw %struct.Argument, ptr %.pre, i64 %indvars.iv146
  %arrayidx32 = getelementptr inbounds nuw [48 x %struct.Any], ptr %arguments, i64 0, i64 %indvars.iv146
  %49 = load i64, ptr %arrayidx30, align 8
  %cmp33 = icmp eq i64 %49, 1
  br i1 %cmp33, label %cond.true, label %cond.false

cond.true:                                        ; preds = %for.body27
  %number = getelementptr inbounds nuw i8, ptr %arrayidx30, i64 8
  %50 = load i64, ptr %number, align 8
  %arrayidx35 = getelementptr inbounds %struct.Any, ptr %add.ptr, i64 %50
  br label %cond.end

cond.false:                                       ; preds = %for.body27
  %constant = getelementptr inbounds nuw i8, ptr %arrayidx30, i64 16
  br label %cond.end

cond.end:                                         ; preds = %cond.false, %cond.true
  %constant.sink = phi ptr [ %constant, %cond.false ], [ %arrayidx35, %cond.true ]
  call void @llvm.memcpy.p0.p0.i64(ptr noundef nonnull align 8 dereferenceable(16) %arrayidx32, ptr noundef nonnull align 8 dereferenceable(16) %constant.sink, i64 16, i1 false)
  %51 = load i64, ptr %arrayidx30, align 8
  %cmp37.not = icmp eq i64 %51, 2
  br i1 %cmp37.not, label %if.end40, label %cleanup53

if.end40:                                         ; preds = %cond.end
  %arrayidx42 = getelementptr inbounds nuw [48 x %struct.Tensor], ptr %places, i64 0, i64 %indvars.iv146
  %number44 = getelementptr inbounds nuw i8, ptr %arrayidx30, i64 8
  %52 = load i64, ptr %number44, align 8
  %add.ptr45 = getelementptr inbounds i8, ptr %4, i64 %52
  store ptr %add.ptr45, ptr %arrayidx42, align 8
  %.compoundliteral.sroa.3.0.arrayidx42.sroa_idx = getelementptr inbounds nuw i8, ptr %arrayidx42, i64 8
  store i32 1, ptr %.compoundliteral.sroa.3.0.arrayidx42.sroa_idx, align 8
  %.compoundliteral.sroa.4.0.arrayidx42.sroa_idx = getelementptr inbounds nuw i8, ptr %arrayidx42, i64 12
  call void @llvm.memset.p0.i64(ptr noundef nonnull align 4 dereferenceable(36) %.compoundliteral.sroa.4.0.arrayidx42.sroa_idx, i8 0, i64 36, i1 false)
  store <2 x i32> <i32 4, i32 0>, ptr %arrayidx32, align 8
  %.compoundliteral48.sroa.3.0.arrayidx47.sroa_idx = getelementptr inbounds nuw i8, ptr %arrayidx32, i64 8
  store ptr %arrayidx42, ptr %.compoundliteral48.sroa.3.0.arrayidx47.sroa_idx, align 8
  br label %cleanup53

cleanup53:                                        ; preds = %cond.end, %if.end40
  %indvars.iv.next147 = add nuw nsw i64 %indvars.iv146, 1
  %cmp24 = icmp sgt i64 %47, %indvars.iv.next147
  br i1 %cmp24, label %for.body27, label %for.cond.cleanup26, !llvm.loop !13

if.end64:                                         ; preds = %for.cond.cleanup26
  store i64 2, ptr %5, align 8
  %proceed = getelementptr inbounds nuw i8, ptr %step.0141, i64 24
  %53 = load i64, ptr %proceed, align 8
  %cmp65 = icmp sgt i64 %53, -1
  br i1 %cmp65, label %land.lhs.true, label %for.inc78

land.lhs.true:                                    ; preds = %if.end64
  %add.ptr68 = getelementptr inbounds nuw i8, ptr %4, i64 %53
  %54 = load i32, ptr %add.ptr68, align 4
  %tobool69.not = icmp eq i32 %54, 0
  br i1 %tobool69.not, label %cleanup79, label %for.inc78

for.inc78:                                        ; preds = %land.lhs.true, %if.end64
  call void @llvm.lifetime.end.p0(i64 2304, ptr nonnull %places) #6
  call void @llvm.lifetime.end.p0(i64 16, ptr nonnull %none) #6
  call void @llvm.lifetime.end.p0(i64 768, ptr nonnull %arguments) #6
  %incdec.ptr = getelementptr inbounds nuw i8, ptr %step.0141, i64 32
  %55 = load ptr, ptr %steps, align 8
  %56 = load i64, ptr %count14, align 8
  %add.ptr15 = getelementptr inbounds %struct.Step, ptr %55, i64 %56
  %cmp16.not = icmp ult ptr %incdec.ptr, %add.ptr15
  br i1 %cmp16.not, label %for.body19, label %for.end81, !llvm.loop !14

cleanup79:                                        ; preds = %for.cond.cleanup26, %land.lhs.true
  call void @llvm.lifetime.end.p0(i64 2304, ptr nonnull %places) #6
  call void @llvm.lifetime.end.p0(i64 16, ptr nonnull %none) #6
  call void @llvm.lifetime.end.p0(i64 768, ptr nonnull %arguments) #6
  br label %cleanup82

for.end81:                                        ; preds = %for.inc78, %for.end
  store i64 0, ptr %5, align 8
  br label %cleanup82

cleanup82:                                        ; preds = %if.end14.i, %lor.lhs.false16.i, %lor.lhs.false19.i, %cond.end.i, %lor.lhs.false.i, %for.body, %is_as_expected.exit, %for.cond49.preheader.i.is_as_expected.exit_crit_edge, %for.body.i, %land.lhs.true36.i, %cleanup79, %entry, %for.end81
  %retval.4 = phi i32 [ 0, %for.end81 ], [ %call61, %cleanup79 ], [ 0, %entry ], [ 0, %land.lhs.true36.i ], [ 0, %for.body.i ], [ 0, %for.cond49.preheader.i.is_as_expected.exit_crit_edge ], [ 0, %is_as_expected.exit ], [ 0, %for.body ], [ 0, %lor.lhs.false.i ], [ 0, %cond.end.i ], [ 0, %lor.lhs.false19.i ], [ 0, %lor.lhs.false16.i ], [ 0, %if.end14.i ]
  ret i32 %retval.4
}

; Function Attrs: mustprogress nocallback nofree nosync nounwind willreturn memory(argmem: readwrite)
declare void @llvm.lifetime.start.p0(i64 immarg, ptr nocapture) #1

; Function Attrs: mustprogress nocallback nofree nosync nounwind willreturn memory(argmem: readwrite)
declare void @llvm.lifetime.end.p0(i64 immarg, ptr nocapture) #1

; Function Attrs: mustprogress nocallback nofree nounwind willreturn memory(argmem: write)
declare void @llvm.memset.p0.i64(ptr nocapture writeonly, i8, i64, i1 immarg) #2

; Function Attrs: mustprogress nocallback nofree nounwind willreturn memory(argmem: readwrite)
declare void @llvm.memcpy.p0.p0.i64(ptr noalias nocapture writeonly, ptr noalias nocapture readonly, i64, i1 immarg) #3

declare i32 @TVMFFIFunctionCall(ptr noundef, ptr noundef, i32 noundef, ptr noundef) local_unnamed_addr #4

; Function Attrs: nocallback nofree nosync nounwind speculatable willreturn memory(none)
declare i32 @llvm.vector.reduce.or.v4i32(<4 x i32>) #5

attributes #0 = { nounwind uwtable "no-trapping-math"="true" }
attributes #1 = { mustprogress nocallback nofree nosync nounwind willreturn memory(argmem: readwrite) }
attributes #2 = { mustprogress nocallback nofree nounwind willreturn memory(argmem: write) }
attributes #3 = { mustprogress nocallback nofree nounwind willreturn memory(argmem: readwrite) }
attributes #4 = { "no-trapping-math"="true" }
attributes #5 = { nocallback nofree nosync nounwind speculatable willreturn memory(none) }
attributes #6 = { nounwind }

!llvm.module.flags = !{!0, !1, !2, !3, !4}

!0 = !{i32 7, !"Dwarf Version", i32 4}
!1 = !{i32 1, !"wchar_size", i32 4}
!2 = !{i32 8, !"PIC Level", i32 2}
!3 = !{i32 7, !"uwtable", i32 2}
!4 = !{i32 7, !"frame-pointer", i32 1}
!6 = distinct !{!6, !7}
!7 = !{!"llvm.loop.mustprogress"}
!8 = distinct !{!8, !7, !9, !10}
!9 = !{!"llvm.loop.isvectorized", i32 1}
!10 = !{!"llvm.loop.unroll.runtime.disable"}
!11 = distinct !{!11, !7, !10, !9}
!12 = distinct !{!12, !7}
!13 = distinct !{!13, !7}
!14 = distinct !{!14, !7}
